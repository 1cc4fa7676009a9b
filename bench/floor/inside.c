/* What things cost from within a box: prints a line `NAME PICOSECONDS` for each, the time of one call or round.
 *
 *   inside FILE     FILE is read whole by `open_read_close`
 *
 * Each call is made for a fixed time, since one kernel may need a hundred times as long as another; the loop of
 * arithmetic is of a fixed length. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { USAGE = 2, FAULT = 125, MANY = 50, FEW = 4, TURNS = 20000000 };
static const uint64_t LONG_NS = 20000000;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int get_parent(const char *file)
{
    (void)file;
    /* By its name: gVisor replaces the instructions of such a call with a quicker way, and not those of syscall(3). */
    return getppid() < 0;
}

static int read_file(const char *file)
{
    char buffer[4096];
    int fd = open(file, O_RDONLY);
    int bad = fd < 0 || read(fd, buffer, sizeof buffer) <= 0;
    return close(fd) || bad;
}

/* A command as anybody's would start one: what no way into the box can be quicker than. */
static int spawn(const char *file)
{
    static char *const argv[] = {"true", NULL}, *const environment[] = {NULL};
    int status;
    pid_t pid = vfork();

    (void)file;
    if (pid == 0) {
        execve("/bin/true", argv, environment);
        _exit(127);
    }
    return pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0;
}

static int echoing = -1;

/* A connection over loopback to a child that says everything again. It ends with this process. */
static int begin_echo(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof at;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    char byte;

    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 1) ||
        getsockname(listener, (struct sockaddr *)&at, &length))
        return 1;
    if (fork() == 0) {
        int fd = accept(listener, NULL, NULL);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
            ;
        _exit(0);
    }
    close(listener);
    echoing = socket(AF_INET, SOCK_STREAM, 0);
    return connect(echoing, (struct sockaddr *)&at, sizeof at) ||
           setsockopt(echoing, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int round_trip(const char *file)
{
    char byte = 1;

    (void)file;
    return write(echoing, &byte, 1) != 1 || read(echoing, &byte, 1) != 1;
}

static int time_call(const char *name, int batch, int (*call)(const char *), const char *file)
{
    uint64_t count = 0, began = now_ns(), passed = 0;
    int bad = 0;

    while (passed < LONG_NS) {
        for (int i = 0; i < batch; i++)
            bad |= call(file);
        count += batch;
        passed = now_ns() - began;
    }
    printf("%s %lu\n", name, passed * 1000 / count);
    return bad;
}

static void time_loop(void)
{
    volatile uint64_t kept;
    uint64_t state = 1, began = now_ns();

    for (int i = 0; i < TURNS; i++)
        state = state * 6364136223846793005u + 1442695040888963407u;
    kept = state;
    (void)kept;
    printf("cpu_loop %lu\n", (now_ns() - began) * 1000);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: inside FILE\n", stderr);
        return USAGE;
    }
    if (time_call("getppid", MANY, get_parent, argv[1]) || time_call("open_read_close", MANY, read_file, argv[1]) ||
        time_call("spawn", FEW, spawn, argv[1]) || begin_echo() ||
        time_call("round_trip", MANY, round_trip, argv[1])) {
        fprintf(stderr, "inside: a call failed; is there %s, /bin/true and a loopback device?\n", argv[1]);
        return FAULT;
    }
    time_loop();
    return 0;
}
