/* The floor's client, in C so that its numbers have no interpreter in them.
 *
 *   floor run   FILTER -- COMMAND [ARG...]   one box with our stdio; its status is ours
 *   floor serve FILTER -- COMMAND [ARG...]   orders on stdin, numbers on stdout:
 *       time N    N boxes one after another; a line each: total ns, then PHASE=ns
 *       rate MS   as many boxes as fit into MS milliseconds; one line: boxes, ns
 *
 * FILTER is a packed array of struct sock_filter. */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { USAGE = 2, FAULT = 125 };

_Noreturn void die(const char *step)
{
    dprintf(STDERR_FILENO, "floor: %s: %s\n", step, strerror(errno));
    _exit(FAULT);
}

/* Phases are differences of moments.  The one with a star runs beside init, on the spawner's
 * side; the others add up to the box's time, but for the two hops over the socket. */
static const struct {
    const char *name;
    enum moment from, to;
} phases[] = {
    {"clone", AT_REQUEST, AT_INIT},
    {"maps*", AT_CLONED, AT_MAPPED},
    {"root+proc+masks", AT_INIT, AT_PROC},
    {"ids", AT_PROC, AT_IDS},
    {"tmp+shm+pts", AT_IDS, AT_MOUNTS},
    {"pivot+detach", AT_MOUNTS, AT_PIVOT},
    {"hostname+lo", AT_PIVOT, AT_NET},
    {"vfork", AT_NET, AT_COMMAND},
    {"landlock", AT_COMMAND, AT_LANDLOCK},
    {"last-stage", AT_LANDLOCK, AT_IDENTITY},
    {"seccomp", AT_IDENTITY, AT_SECCOMP},
    {"execve", AT_SECCOMP, AT_EXEC},
    {"command", AT_EXEC, AT_EXIT},
    {"teardown", AT_EXIT, AT_REAPED},
};
enum { PHASES = sizeof phases / sizeof *phases };

static struct sock_fprog load_filter(const char *path)
{
    struct stat about;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) < 0)
        die(path);
    struct sock_filter *code = malloc((size_t)about.st_size);
    if (!code || read(fd, code, (size_t)about.st_size) != about.st_size)
        die(path);
    close(fd);
    return (struct sock_fprog){.len = (unsigned short)((size_t)about.st_size / sizeof *code), .filter = code};
}

static int start_spawner(const char *path)
{
    struct sock_fprog filter = load_filter(path);
    int ends[2];

    MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    pid_t pid = fork();
    MUST(pid);
    if (pid == 0) {
        close(ends[0]);
        spawner(ends[1], &filter);
    }
    close(ends[1]);
    return ends[0];
}

static struct answer one_box(int socket, const char *words, size_t size, const int stdio[STDIO])
{
    union {
        char bytes[CMSG_SPACE(STDIO * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec data = {(void *)words, size};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control,
    };
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    struct answer answer;

    *rights = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(STDIO * sizeof(int))};
    memcpy(CMSG_DATA(rights), stdio, STDIO * sizeof(int));
    MUST(sendmsg(socket, &message, MSG_NOSIGNAL));
    errno = ECONNRESET;
    if (recv(socket, &answer, sizeof answer, 0) != sizeof answer)
        die("spawner");
    return answer;
}

static void expect_success(struct answer answer)
{
    if (answer.status != 0) {
        fprintf(stderr, "floor: the command ended with status %d\n", answer.status);
        exit(FAULT);
    }
}

static void time_boxes(int socket, const char *words, size_t size, const int stdio[STDIO], unsigned long count)
{
    while (count--) {
        uint64_t start = now_ns();
        struct answer answer = one_box(socket, words, size, stdio);
        uint64_t end = now_ns();
        expect_success(answer);
        printf("%lu", end - start);
        for (int i = 0; i < PHASES; i++)
            printf(" %s=%ld", phases[i].name, (long)(answer.at[phases[i].to] - answer.at[phases[i].from]));
        putchar('\n');
    }
}

static void rate_boxes(int socket, const char *words, size_t size, const int stdio[STDIO], unsigned long ms)
{
    uint64_t start = now_ns(), now;
    unsigned long boxes = 0;
    do {
        expect_success(one_box(socket, words, size, stdio));
        boxes++;
        now = now_ns();
    } while (now - start < ms * 1000000);
    printf("%lu %lu\n", boxes, now - start);
}

static int serve(int socket, const char *words, size_t size)
{
    char order[16];
    unsigned long number;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    const int stdio[STDIO] = {null, null, null};

    MUST(null);
    while (scanf("%15s %lu", order, &number) == 2) {
        if (strcmp(order, "time") == 0)
            time_boxes(socket, words, size, stdio, number);
        else if (strcmp(order, "rate") == 0)
            rate_boxes(socket, words, size, stdio, number);
        else
            return USAGE;
        fflush(stdout);
    }
    return 0;
}

static size_t join(char *words, char **argv)
{
    size_t size = 0;
    for (; *argv; argv++) {
        size_t length = strlen(*argv) + 1;
        if (size + length >= ARGV_BYTES) {
            errno = E2BIG;
            die("command");
        }
        memcpy(words + size, *argv, length);
        size += length;
    }
    return size;
}

int main(int argc, char **argv)
{
    static char words[ARGV_BYTES];
    static const int own[STDIO] = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};

    if (argc < 5 || strcmp(argv[3], "--") != 0) {
        fputs("usage: floor run|serve FILTER -- COMMAND [ARG...]\n", stderr);
        return USAGE;
    }
    size_t size = join(words, argv + 4);
    int socket = start_spawner(argv[2]);
    if (strcmp(argv[1], "run") == 0)
        return one_box(socket, words, size, own).status;
    return serve(socket, words, size);
}
