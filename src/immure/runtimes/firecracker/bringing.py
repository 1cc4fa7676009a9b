"""Files of the host in a jail: mounted there, in the jail's own mount namespace, so that nothing of them stays behind.

Each is one mount: no device, no program, no setuid, read-only unless it is to be written. Where the machine's user
might not open it, the mount shows it as that user's. Nothing of the file itself is changed, or copied.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from immure.errors import SpecError
from immure.runtimes.firecracker import system

#: In the jail.
FOLDER = "files"
_OTHERS_READ, _OTHERS_WRITE = 0o4, 0o2


def shown(source: str, *, writable: bool, uid: int) -> int:
    """A detached mount of a file or block device, as a user is to see it. Raises SpecError."""
    fd = _opened(source)
    try:
        return _tree(fd, source, writable, uid)
    finally:
        os.close(fd)


def bring(tree: int, source: str, name: str, *, root: int, mounts: int) -> str:
    """Attaches what `shown` gave as `name` in the jail, and gives its path there.

    `root` and `mounts` are descriptors of the jail's root and its mount namespace. Raises SpecError.
    """
    with _folder(root) as folder:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=folder))
    path = f"/{FOLDER}/{name}"
    try:
        system.in_own_thread(lambda: _attach(mounts, tree, path))
    except OSError as error:
        raise _refused(source, "mounted in the jail of a machine", error) from error
    return path


def take_away(name: str, mounts: int) -> None:
    """Takes a file out of sight again. One that is open there stays so."""

    def leave() -> None:
        _enter(mounts)
        system.unmount(f"/{FOLDER}/{name}")

    system.in_own_thread(leave)


def pipe(name: str, *, root: int, uid: int) -> int:
    """Makes a named pipe that a user may write to, and gives our end of it. fifo(7)."""
    with _folder(root) as folder:
        os.mkfifo(name, 0o600, dir_fd=folder)
        os.chown(name, uid, uid, dir_fd=folder, follow_symlinks=False)
        fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError("no pipe")
    return fd


@contextmanager
def _folder(root: int) -> Generator[int]:
    """Where these files are. The jail's user owns the jail's root: no link is followed."""
    try:
        os.mkdir(FOLDER, 0o755, dir_fd=root)
    except FileExistsError:
        pass
    folder = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        yield folder
    finally:
        os.close(folder)


def _opened(source: str) -> int:
    if not os.path.isabs(source):  # noqa: PTH117
        raise SpecError(f"{source} is no absolute path", need="the path of a file on this host", have=source)
    try:
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        have = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError(f"{source} can't be opened", need="a file of this host", have=have) from error
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        os.close(fd)
        raise SpecError(f"{source} is no file", need="a regular file or a block device", have="something else")
    return fd


def _tree(fd: int, source: str, writable: bool, uid: int) -> int:
    found = os.fstat(fd)
    attributes = system.ATTR_NOSUID | system.ATTR_NOEXEC
    if not stat.S_ISBLK(found.st_mode):
        attributes |= system.ATTR_NODEV
    if not writable:
        attributes |= system.ATTR_RDONLY
    tree = system.open_tree(fd)
    try:
        needed = _OTHERS_READ | (_OTHERS_WRITE if writable else 0)
        if found.st_mode & needed == needed:
            system.mount_setattr(tree, attributes)
        else:
            _set_shown_as(tree, attributes, found.st_uid, found.st_gid, uid)
    except OSError as error:
        os.close(tree)
        raise _refused(source, f"shown as a file of user {uid}", error) from error
    return tree


def _set_shown_as(tree: int, attributes: int, owner: int, group: int, uid: int) -> None:
    namespace = _namespace(f"{owner} {uid} 1", f"{group} {uid} 1")
    try:
        system.mount_setattr(tree, attributes | system.ATTR_IDMAP, namespace)
    finally:
        os.close(namespace)


def _namespace(uid_map: str, gid_map: str) -> int:
    """A user namespace with these maps. user_namespaces(7)."""
    waits = ["unshare", "--user", "--", "/bin/sh", "-c", "echo; read -r _"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        folder = Path(f"/proc/{process.pid}")
        (folder / "uid_map").write_text(uid_map)
        (folder / "gid_map").write_text(gid_map)
        namespace = os.open(folder / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        process.stdin.close()
    return namespace


def _attach(mounts: int, tree: int, path: str) -> None:
    _enter(mounts)
    system.move_mount(tree, path)


def _enter(mounts: int) -> None:
    # A mount namespace is entered by who shares neither root nor working directory.
    system.unshare(system.CLONE_FS)
    system.setns(mounts, system.CLONE_NEWNS)


def _refused(source: str, what: str, error: OSError) -> SpecError:
    return SpecError(
        f"{source} can't be {what}",
        need="a file that other users may read, and write if a machine is to, or a file system with idmapped mounts",
        have=error.strerror,
        hint="put it on ext4, xfs or btrfs, or change its mode",
    )
