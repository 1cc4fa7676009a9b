/* What init does to its copy of the template, up to the pivot. */
#define _GNU_SOURCE
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The runtime-spec defaults for /proc.  A path that this kernel lacks is passed over. */
static const char *const hidden_files[] = {
    "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats",
    "proc/sched_debug", "proc/timer_list", "proc/timer_stats",
};
static const char *const hidden_folders[] = {"proc/acpi", "proc/asound", "proc/scsi"};
static const char *const read_only[] = {
    "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger",
};

#define EACH(item, list) \
    for (const char *const *item = list; item < list + sizeof list / sizeof *list; item++)

static void bind_over(const char *source, const char *target)
{
    if (mount(source, target, NULL, MS_BIND, NULL) < 0 && errno != ENOENT)
        die(target);
}

static void set_attributes(const char *path, uint64_t set, uint64_t clear, unsigned flags)
{
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear};
    MUST(mount_setattr(AT_FDCWD, path, flags, &attr, sizeof attr));
}

/* Needs no ids, so it runs while the spawner still writes the maps. */
void enter_root(void)
{
    /* The copy of /r is locked to its parent, and pivot_root refuses it; a bind is ours. */
    MUST(mount("/r", "/r", NULL, MS_BIND | MS_REC, NULL));
    MUST(chdir("/r"));
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    EACH(path, hidden_files) bind_over("dev/null", *path);
    EACH(path, hidden_folders) bind_over("/empty", *path);
    EACH(path, read_only) bind_over(*path, *path);
    /* All read-only, then proc itself back: two calls where each bind would need its own. */
    set_attributes("proc", MOUNT_ATTR_RDONLY, 0, AT_RECURSIVE);
    set_attributes("proc", 0, MOUNT_ATTR_RDONLY, 0);
}

/* Needs ids: a tmpfs whose owner isn't mapped can't be written to. */
void mount_private(void)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV;

    umask(0);
    MUST(mount("box", "/scratch", "tmpfs", flags, "mode=0755,size=64m,nr_inodes=65536"));
    MUST(mkdir("/scratch/tmp", 01777));
    MUST(mkdir("/scratch/shm", 01777));
    MUST(mount("/scratch/tmp", "tmp", NULL, MS_BIND, NULL));
    MUST(mount("/scratch/shm", "dev/shm", NULL, MS_BIND, NULL));
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
               "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    umask(022);
}

void pivot(void)
{
    /* Old and new root on one spot: the old is on top of ".", and is what umount takes. */
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
}
