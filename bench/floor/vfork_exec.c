/* No walls at all: vfork, execve, wait.  What a command costs before any sandbox.
 *
 *   vfork_exec N COMMAND [ARG...]       N times; a line each: ns
 *   vfork_exec serve COMMAND [ARG...]   the same for each line "time N" on stdin */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { USAGE = 2, FAULT = 125 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void one_command(char **argv)
{
    static char *const environment[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C.UTF-8", NULL,
    };
    int status;
    pid_t pid = vfork();
    if (pid == 0) {
        execve(argv[0], argv, environment);
        _exit(127);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0) {
        fprintf(stderr, "vfork_exec: %s did not end with status 0\n", argv[0]);
        exit(FAULT);
    }
}

static void time_commands(char **argv, unsigned long count)
{
    while (count--) {
        uint64_t start = now_ns();
        one_command(argv);
        printf("%lu\n", now_ns() - start);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    unsigned long count;

    if (argc < 3) {
        fputs("usage: vfork_exec N|serve COMMAND [ARG...]\n", stderr);
        return USAGE;
    }
    if (strcmp(argv[1], "serve") != 0)
        time_commands(argv + 2, strtoul(argv[1], NULL, 10));
    else
        while (scanf(" time %lu", &count) == 1)
            time_commands(argv + 2, count);
    return 0;
}
