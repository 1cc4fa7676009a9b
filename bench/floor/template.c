/* The mount template: made once by the spawner, copied by every box's
 * CLONE_NEWNS.  It has four mounts only, because a clone copies each of them:
 *
 *   /        tmpfs, ro; holds mount points
 *   /proc    the full proc; without a fully visible one in the mount namespace
 *            the kernel refuses a new proc to a user namespace
 *   /r       tmpfs, ro: the box's root
 *   /r/usr   the host's /usr, recursive, ro nosuid nodev
 */
#define _GNU_SOURCE
#include "floor.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/keyctl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BUILD_DIR "/tmp" /* hidden by the template's tmpfs in our namespace only */

static void make_dir(const char *path, mode_t mode)
{
    MUST(mkdir(path, mode));
}

static void make_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    MUST(fd);
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        die(path);
    close(fd);
}

static void copy_file(const char *from, const char *to)
{
    char buffer[1 << 16];
    ssize_t n;
    int in = open(from, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return; /* a host without ld.so.cache: the loader searches instead */
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    MUST(out);
    while ((n = read(in, buffer, sizeof buffer)) > 0)
        if (write(out, buffer, (size_t)n) != n)
            die(to);
    close(in);
    close(out);
}

static void make_device(const char *path, unsigned major_no, unsigned minor_no)
{
    MUST(mknod(path, S_IFCHR | 0666, makedev(major_no, minor_no)));
}

/* /bin and friends are links into /usr on a merged-usr host; copy what they say. */
static void copy_link(const char *host_path, const char *box_path)
{
    char target[PATH_MAX];
    ssize_t n = readlink(host_path, target, sizeof target - 1);
    if (n < 0)
        return;
    target[n] = '\0';
    MUST(symlink(target, box_path));
}

static void make_etc(void)
{
    make_dir("r/etc", 0755);
    make_file("r/etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\n"
                              "box:x:1000:1000:box:/tmp:/bin/sh\n"
                              "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n");
    make_file("r/etc/group", "root:x:0:\nbox:x:1000:\nnogroup:x:65534:\n");
    make_file("r/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    make_file("r/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n");
    make_file("r/etc/resolv.conf", "");
    copy_file("/etc/ld.so.cache", "r/etc/ld.so.cache"); /* a copy: binds go stale */
}

static void make_dev(void)
{
    make_dir("r/dev", 0755);
    make_device("r/dev/null", 1, 3);
    make_device("r/dev/zero", 1, 5);
    make_device("r/dev/full", 1, 7);
    make_device("r/dev/random", 1, 8);
    make_device("r/dev/urandom", 1, 9);
    make_device("r/dev/tty", 5, 0);
    MUST(symlink("pts/ptmx", "r/dev/ptmx"));
    MUST(symlink("/proc/self/fd", "r/dev/fd"));
    MUST(symlink("/proc/self/fd/0", "r/dev/stdin"));
    MUST(symlink("/proc/self/fd/1", "r/dev/stdout"));
    MUST(symlink("/proc/self/fd/2", "r/dev/stderr"));
    make_dir("r/dev/pts", 0755);
    make_dir("r/dev/shm", 0755);
}

static void bind_usr(void)
{
    struct mount_attr attr = {
        .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV,
        .propagation = MS_PRIVATE,
    };
    int tree = open_tree(AT_FDCWD, "/usr", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    MUST(tree);
    /* One recursive call, where remounting would need one for each mount beneath. */
    MUST(mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr, sizeof attr));
    MUST(move_mount(tree, "", AT_FDCWD, "r/usr", MOVE_MOUNT_F_EMPTY_PATH));
    close(tree);
}

static void fill_root(void)
{
    static const char *const links[] = {"bin", "sbin", "lib", "lib32", "libx32", "lib64"};

    make_dir("r/usr", 0755);
    make_dir("r/proc", 0555);
    make_dir("r/tmp", 0755);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        char host_path[16], box_path[16];
        snprintf(host_path, sizeof host_path, "/%s", links[i]);
        snprintf(box_path, sizeof box_path, "r/%s", links[i]);
        copy_link(host_path, box_path);
    }
    make_etc();
    make_dev();
    /* World-readable, and named by no Landlock rule: a box that can open it has no domain. */
    make_file("r/.sentinel", "outside every rule\n");
}

static void make_read_only(const char *path, uint64_t also)
{
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | also};
    MUST(mount_setattr(AT_FDCWD, path, 0, &attr, sizeof attr));
}

void build_template(void)
{
    MUST(unshare(CLONE_NEWNS));
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    MUST(mount("outer", BUILD_DIR, "tmpfs", MS_NOSUID, "mode=0755,size=1m"));
    MUST(chdir(BUILD_DIR));
    umask(0);

    make_dir("proc", 0555);
    make_dir("empty", 0555);   /* hides folders of proc              */
    make_dir("scratch", 0755); /* where a box mounts its own tmpfs   */
    make_dir("r", 0755);
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    MUST(mount("root", "r", "tmpfs", MS_NOSUID, "mode=0755,size=4m"));
    fill_root();
    bind_usr();
    make_read_only("r", 0); /* not nodev: its own /dev lives in it */
    make_read_only(".", MOUNT_ATTR_NODEV);

    /* The host's tree goes, so a box copies four mounts and not the host's dozens. */
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
    umask(022);
    /* One keyring for all boxes: a keyring each exhausts a uid's quota at 200. */
    MUST(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL));
}
