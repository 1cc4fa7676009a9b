// What a system call costs with and without a filter: per_call FILTER|- CALL N ARG…
// Prints the nanoseconds of each of 7 runs of N calls. FILTER is a packed array of struct sock_filter.
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RUNS = 7 };

static void install(const char *path) {
    static struct sock_filter program[4096];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(1);
    }
    struct sock_fprog header = {.filter = program};
    header.len = fread(program, sizeof *program, 4096, file);
    fclose(file);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &header)) {
        perror("seccomp");
        exit(1);
    }
}

static long now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000L + time.tv_nsec;
}

int main(int count, char **words) {
    if (count < 4) {
        fprintf(stderr, "usage: per_call FILTER|- CALL N [ARG…]\n");
        return 2;
    }
    long call = atol(words[2]), rounds = atol(words[3]);
    unsigned long args[6] = {0};
    for (int at = 4; at < count && at < 10; at++) args[at - 4] = strtoul(words[at], NULL, 0);
    if (strcmp(words[1], "-")) install(words[1]);
    for (int run = 0; run < RUNS; run++) {
        long begin = now_ns();
        for (long round = 0; round < rounds; round++) syscall(call, args[0], args[1], args[2], args[3], args[4], args[5]);
        printf("%ld\n", now_ns() - begin);
    }
    return 0;
}
