/* From init's child to the untrusted program: Landlock, the last stage, execve.
 *
 * It runs in a vfork, so in init's memory: system calls and the stack only. */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { USER = 1000, PROCESSES = 128 };

/* Debian 12's header ends at ABI 2; these are the structure and the rights up to ABI 7. */
struct ruleset_attr {
    uint64_t handled_access_fs, handled_access_net, scoped;
};
#define FS_TRUNCATE (1ULL << 14)
#define FS_IOCTL_DEV (1ULL << 15)
#define SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define SCOPE_SIGNAL (1ULL << 1)
enum { ABI_TRUNCATE = 3, ABI_IOCTL_DEV = 5, ABI_SCOPES = 6 };

#define READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define READ_EXECUTE (READ | LANDLOCK_ACCESS_FS_EXECUTE)
#define READ_WRITE (READ | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE | FS_IOCTL_DEV)
#define EVERYTHING (((LANDLOCK_ACCESS_FS_REFER << 1) - 1) | FS_TRUNCATE | FS_IOCTL_DEV)

static const struct {
    const char *path;
    uint64_t rights;
} rules[] = {
    {"/usr", READ_EXECUTE}, {"/etc", READ_EXECUTE}, {"/proc", READ_WRITE},
    {"/dev", READ_WRITE},   {"/dev/shm", EVERYTHING}, {"/tmp", EVERYTHING},
};

static struct ruleset_attr handled = {
    .handled_access_fs = EVERYTHING,
    .scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL,
};

void fit_landlock(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    MUST(abi);
    if (abi < ABI_TRUNCATE) {
        errno = EOPNOTSUPP;
        die("Landlock ABI 3, without which there is no L2");
    }
    if (abi < ABI_IOCTL_DEV)
        handled.handled_access_fs &= ~FS_IOCTL_DEV;
    if (abi < ABI_SCOPES)
        handled.scoped = 0;
}

static void enter_landlock(void)
{
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0);
    MUST(ruleset);
    for (unsigned i = 0; i < sizeof rules / sizeof *rules; i++) {
        struct landlock_path_beneath_attr rule = {.allowed_access = rules[i].rights & handled.handled_access_fs};
        rule.parent_fd = open(rules[i].path, O_PATH | O_CLOEXEC);
        MUST(rule.parent_fd);
        MUST(syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
        close(rule.parent_fd);
    }
    MUST(syscall(SYS_landlock_restrict_self, ruleset, 0));
    close(ruleset);
}

static void limit(int resource, rlim_t value)
{
    struct rlimit both = {value, value};
    MUST(setrlimit(resource, &both));
}

static void drop_privileges(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {0};

    for (int cap = 0; prctl(PR_CAPBSET_DROP, cap) == 0; cap++)
        ;
    if (errno != EINVAL) /* EINVAL: past the last capability of this kernel */
        die("PR_CAPBSET_DROP");
    MUST(prctl(PR_SET_SECUREBITS, SECURE_ALL_BITS | SECURE_ALL_LOCKS));
    MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    MUST(setgroups(0, NULL));
    MUST(setresgid(USER, USER, USER));
    MUST(setresuid(USER, USER, USER));
    MUST(syscall(SYS_capset, &header, none));
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static void install(const struct sock_fprog *filter)
{
    MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter));
}

_Noreturn void become_command(struct request *rq, const struct sock_fprog *filter)
{
    static char *const environment[] = {
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C.UTF-8", NULL,
    };

    stamp(AT_COMMAND);
    enter_landlock();
    stamp(AT_LANDLOCK);
    /* Dispositions and the mask are the spawner's, which reset them when it started. */
    MUST(setsid());
    MUST(close_range(STDIO, ~0U, 0));
    MUST(chdir("/tmp"));
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_NPROC, PROCESSES); /* counted within the box's user namespace */
    drop_privileges();
    stamp(AT_IDENTITY);
    install(filter);
    stamp(AT_SECCOMP);
    execve(rq->argv[0], rq->argv, environment);
    _exit(errno == ENOENT ? 127 : 126);
}
