/* One box: a plain clone, maps by the spawner, init in place (no exec). */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/futex.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAMESPACES \
    (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP)

enum { IDS = 65536, RANGES = 16384, RANGES_PER_SPAWNER = 1024 };
static const uint32_t FIRST_ID = 0x70000000; /* host uid 0 is never in a map */

/* Ranges by turns; spawners start at different ones.  (A product claims them by a lock.) */
static uint32_t next_range(void)
{
    static uint32_t turn;
    uint32_t first = (uint32_t)getpid() * RANGES_PER_SPAWNER % RANGES;
    return FIRST_ID + (first + turn++ % RANGES_PER_SPAWNER) * IDS;
}

static void write_map(pid_t pid, const char *file, const char *map, size_t size)
{
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    MUST(fd);
    if (write(fd, map, size) != (ssize_t)size)
        die(path);
    close(fd);
}

static void give_ids(pid_t pid)
{
    char map[40];
    int size = snprintf(map, sizeof map, "0 %u %u", next_range(), IDS);
    write_map(pid, "uid_map", map, (size_t)size);
    write_map(pid, "gid_map", map, (size_t)size);
    __atomic_store_n(&shared->maps_ready, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &shared->maps_ready, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Usually the maps are there before init asks, and this costs no call at all. */
static void await_ids(void)
{
    while (!__atomic_load_n(&shared->maps_ready, __ATOMIC_ACQUIRE))
        syscall(SYS_futex, &shared->maps_ready, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(fd);
    MUST(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
}

/* The spawner's descriptors are not for a box: only the command's stdio stays. */
static void scrub(const struct request *rq)
{
    for (int i = 0; i < STDIO; i++)
        MUST(dup2(rq->stdio[i], i));
    MUST(close_range(STDIO, ~0U, 0));
}

static int shell_status(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Reap everything; the command's end is the box's end, and takes the rest along. */
static _Noreturn void reap_until(pid_t command)
{
    int status;
    for (;;) {
        pid_t pid = waitpid(-1, &status, 0);
        if (pid == command)
            break;
        if (pid < 0 && errno != EINTR)
            die("waitpid");
    }
    stamp(AT_EXIT);
    _exit(shell_status(status));
}

static _Noreturn void init_main(struct request *rq, const struct sock_fprog *filter)
{
    stamp(AT_INIT);
    scrub(rq);
    enter_root();
    stamp(AT_PROC);
    await_ids();
    MUST(setgroups(0, NULL));
    MUST(setresgid(0, 0, 0));
    MUST(setresuid(0, 0, 0));
    /* After the ids, since a change of credentials clears it. */
    MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
    stamp(AT_IDS);
    mount_private();
    stamp(AT_MOUNTS);
    pivot();
    stamp(AT_PIVOT);
    MUST(sethostname("box", 3));
    loopback_up();
    stamp(AT_NET);
    /* vfork: init has nothing else to do until the command's execve, and no page is copied. */
    pid_t command = vfork();
    if (command == 0)
        become_command(rq, filter);
    MUST(command);
    stamp(AT_EXEC);
    reap_until(command);
}

int run_box(struct request *rq, const struct sock_fprog *filter)
{
    int status;

    shared->maps_ready = 0;
    pid_t pid = (pid_t)syscall(SYS_clone, NAMESPACES | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        init_main(rq, filter);
    MUST(pid);
    stamp(AT_CLONED);
    give_ids(pid);
    stamp(AT_MAPPED);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            die("waitpid");
    stamp(AT_REAPED);
    return shell_status(status);
}
