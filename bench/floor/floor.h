/* The safe C floor: the quickest honest way known to put a command behind the
 * walls of an L2 box.  See ../README.md for what it is compared with and why. */
#ifndef FLOOR_H
#define FLOOR_H

#include <linux/filter.h>
#include <stdint.h>
#include <time.h>

/* Moments of one box's life, in the order in which they usually come.  The
 * spawner, init and the command all write into one shared page. */
enum moment {
    AT_REQUEST,   /* spawner: request read                               */
    AT_CLONED,    /* spawner: clone returned                             */
    AT_MAPPED,    /* spawner: uid and gid map written                    */
    AT_INIT,      /* init: first instruction                             */
    AT_PROC,      /* init: root bound, proc mounted and masked           */
    AT_IDS,       /* init: maps seen, ids taken                          */
    AT_MOUNTS,    /* init: /tmp, /dev/shm, /dev/pts                      */
    AT_PIVOT,     /* init: root pivoted, the outer one detached          */
    AT_NET,       /* init: host name, loopback                           */
    AT_COMMAND,   /* command: first instruction                          */
    AT_LANDLOCK,  /* command: domain entered                             */
    AT_IDENTITY,  /* command: the last stage but for the filter          */
    AT_SECCOMP,   /* command: the filter is installed                    */
    AT_EXEC,      /* init: execve has released the memory of the vfork   */
    AT_EXIT,      /* init: command reaped                                */
    AT_REAPED,    /* spawner: init reaped                                */
    MOMENTS
};

/* Written by both sides of a clone, so it lives in a MAP_SHARED page. */
struct shared {
    uint32_t maps_ready; /* futex word */
    uint64_t at[MOMENTS];
};

struct answer {
    int32_t status; /* as a shell counts: exit code, or 128 + signal */
    uint64_t at[MOMENTS];
};

enum { ARGV_BYTES = 4096, ARGV_MAX = 64, STDIO = 3 };

/* One command to run: NUL-separated words, and the descriptors it gets. */
struct request {
    char words[ARGV_BYTES];
    char *argv[ARGV_MAX + 1];
    int stdio[STDIO];
};

extern struct shared *shared;

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void stamp(enum moment m) { shared->at[m] = now_ns(); }

/* A failed step must never leave a weaker box behind: say which, and end. */
_Noreturn void die(const char *step);
#define MUST(call) \
    do { \
        if ((call) < 0) \
            die(#call); \
    } while (0)

/* template.c */
void build_template(void);
/* root.c */
void enter_root(void);
void mount_private(void);
void pivot(void);
/* command.c */
void fit_landlock(void);
_Noreturn void become_command(struct request *, const struct sock_fprog *);
/* box.c */
int run_box(struct request *, const struct sock_fprog *);
/* spawner.c */
_Noreturn void spawner(int socket, const struct sock_fprog *);

#endif
