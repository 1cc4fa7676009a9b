// Makes the system calls that have trace points of their own, by their numbers: libc takes newer ones where it can.
//   traced_calls every | names | flood COUNT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void transfers(void) {
    char text[] = "some text";
    struct iovec parts[2] = {{text, 4}, {text + 4, 5}};
    long fd = syscall(SYS_openat, AT_FDCWD, "/tmp/file", O_RDWR | O_CREAT, 0640);
    syscall(SYS_write, fd, text, 9);
    syscall(SYS_pwrite64, fd, text, 9, 9L);
    syscall(SYS_writev, fd, parts, 2);
    syscall(SYS_pwritev, fd, parts, 2, 27L, 0L);
    syscall(SYS_pwritev2, fd, parts, 2, 36L, 0L, 0);
    syscall(SYS_read, fd, text, 9);
    syscall(SYS_pread64, fd, text, 9, 1L);
    syscall(SYS_readv, fd, parts, 2);
    syscall(SYS_preadv, fd, parts, 2, 2L, 0L);
    syscall(SYS_preadv2, fd, parts, 2, 3L, 0L, 0);
    void *mapped = (void *)syscall(SYS_mmap, NULL, 4096L, PROT_READ, MAP_PRIVATE, fd, 0L);
    munmap(mapped, 4096);
    long own = open("/traced_calls", O_RDONLY);
    munmap(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, own, 0), 4096);
    close(own);
    syscall(SYS_fcntl, fd, F_GETFL, 0L);
    syscall(SYS_dup, fd);
    syscall(SYS_dup3, fd, 20, O_CLOEXEC);
    syscall(SYS_close, fd);
    syscall(SYS_close, -1);
    syscall(SYS_openat, AT_FDCWD, "/none/such", O_RDONLY, 0);
    syscall(SYS_openat, 20, "/tmp", O_WRONLY, 0);
    syscall(SYS_chdir, "/tmp");
    fd = syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
    syscall(SYS_fchdir, fd);
    syscall(SYS_chroot, "/none");
}

static void sockets(void) {
    int pair[2];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(4321)};
    struct sockaddr_un nowhere = {.sun_family = AF_UNIX, .sun_path = "/none"};
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    long first = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    long second = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    long local = syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
    syscall(SYS_bind, first, &address, sizeof address);
    syscall(SYS_listen, first, 2);
    syscall(SYS_connect, second, &address, sizeof address);
    syscall(SYS_connect, local, &nowhere, sizeof nowhere);
    socklen_t size = sizeof address;
    syscall(SYS_accept, first, &address, &size);
    fcntl(first, F_SETFL, O_NONBLOCK);
    syscall(SYS_accept4, first, &address, &size, SOCK_CLOEXEC);
    syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair);
}

static void descriptors(void) {
    int ends[2];
    uint64_t signals = 1UL << (SIGUSR1 - 1);
    struct itimerspec soon = {{0, 0}, {3600, 5}}, before;
    syscall(SYS_pipe2, ends, O_CLOEXEC);
    syscall(SYS_eventfd2, 3, 0);
    syscall(SYS_signalfd4, -1, &signals, 8L, 0);
    long timer = syscall(SYS_timerfd_create, CLOCK_MONOTONIC, 0);
    syscall(SYS_timerfd_settime, timer, 0, &soon, &before);
    syscall(SYS_timerfd_gettime, timer, &before);
    long watcher = syscall(SYS_inotify_init1, 0);
    long watch = syscall(SYS_inotify_add_watch, watcher, "/tmp", IN_CREATE);
    syscall(SYS_inotify_rm_watch, watcher, watch);
}

static void identities(void) {
    struct rlimit limit = {64, RLIM_INFINITY}, before;
    syscall(SYS_prlimit64, 0, RLIMIT_CORE, &limit, &before);
    syscall(SYS_setsid);
    syscall(SYS_setgid, 0);
    syscall(SYS_setuid, 0);
    syscall(SYS_setresgid, -1, 0, -1);
    syscall(SYS_setresuid, -1, 0, -1);
    syscall(SYS_ptrace, PTRACE_CONT, 12345, 0, 0);
    syscall(SYS_getppid);
}

static void old_calls(void) {
#ifdef SYS_open
    int ends[2];
    uint64_t signals = 1UL << (SIGUSR1 - 1);
    long fd = syscall(SYS_creat, "/tmp/other", 0600);
    syscall(SYS_open, "/tmp/other", O_RDONLY, 0);
    syscall(SYS_dup2, fd, 21);
    syscall(SYS_pipe, ends);
    syscall(SYS_eventfd, 3);
    syscall(SYS_signalfd, -1, &signals, 8L);
    syscall(SYS_inotify_init);
#endif
}

static void child(char *const argv[], int with_descriptor) {
    char *const variables[] = {"NAME=value", NULL};
    if (with_descriptor) {
        syscall(SYS_execveat, AT_FDCWD, argv[0], argv, variables, 0);
    } else {
        syscall(SYS_execve, "/none", argv, variables);
        syscall(SYS_execve, argv[0], argv, variables);
    }
    _exit(9);
}

static void processes(char *self) {
    char *const argv[] = {self, "nothing", "two words", NULL};
    for (int turn = 0; turn < 3; turn++) {
        int status;
#ifdef SYS_fork
        long pid = turn == 0 ? syscall(SYS_fork) : turn == 1 ? vfork() : syscall(SYS_clone, SIGCHLD, 0L, 0L, 0L, 0L);
#else
        long pid = syscall(SYS_clone, SIGCHLD, 0L, 0L, 0L, 0L);
#endif
        if (pid == 0) child(argv, turn == 0);
        waitpid(pid, &status, 0);
    }
    pid_t ended = fork();
    if (ended == 0) {
        signal(SIGTERM, SIG_DFL);
        kill(getpid(), SIGTERM);
    }
    waitpid(ended, NULL, 0);
}

// Text that is no UTF-8, as a name, as a path, and as the working directory.
static void names(void) {
    open("/none/1", O_RDONLY);
    prctl(PR_SET_NAME, "b\xff");
    open("/none/2", O_RDONLY);
    prctl(PR_SET_NAME, "good");
    open("/none/\xff", O_RDONLY);
    mkdir("/tmp/\xff", 0755);
    chdir("/tmp/\xff");
    open("/none/3", O_RDONLY);
}

int main(int count, char **arguments) {
    if (count < 2) return 2;
    if (!strcmp(arguments[1], "every")) {
        transfers();
        sockets();
        descriptors();
        old_calls();
        identities();
        processes(arguments[0]);
    } else if (!strcmp(arguments[1], "names")) {
        names();
    } else if (!strcmp(arguments[1], "flood")) {
        for (long left = atol(arguments[2]); left > 0; left--) syscall(SYS_close, -1);
    }
    return 3;
}
