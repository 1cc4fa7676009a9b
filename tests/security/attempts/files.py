"""Roads to a host file that isn't mounted."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from security.attempt import Denied, Outside, attempt
from security.calls import AT_FDCWD, call

_FS_IMMUTABLE_FL, _FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x10, 0x8008_6601, 0x4008_6602


def _read(path: str | Path) -> str:
    return Path(path).read_text()


@attempt("ENOENT EACCES", scenes="workspace")
def absolute_path(secret: str) -> str:
    """Open the file by its path on the host."""
    return _read(secret)


@attempt("ENOENT", scenes="workspace")
def parent_of_mount(work: str) -> str:
    """Climb from a mounted folder to its neighbour on the host."""
    return _read(f"{work}/../secret")


@attempt("ENOENT EACCES", scenes="workspace")
def parents_without_end(work: str, secret: str) -> str:
    return _read(f"{work}/{'../' * 64}{secret}")


@attempt("ENOENT", scenes="workspace")
def parent_descriptor(work: str) -> str:
    """Climb by descriptors rather than by one path."""
    folder = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    parent = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
    return os.read(os.open("secret", os.O_RDONLY, dir_fd=parent), 100).decode()


@attempt("ENOENT EACCES", scenes="workspace")
def symlink_absolute(work: str, secret: str) -> str:
    link = Path(work, "link")
    link.symlink_to(secret)
    return _read(link)


@attempt("ENOENT", scenes="workspace")
def symlink_relative(work: str) -> str:
    link = Path(work, "link")
    link.symlink_to("../secret")
    return _read(link)


@attempt("ENOENT EACCES", scenes="workspace host_symlink")
def symlink_of_the_host(symlink: str) -> str:
    """Follow a link that was in the mounted folder before."""
    return _read(symlink)


@attempt("ENOENT EACCES", scenes="workspace")
def hard_link(work: str, secret: str) -> str:
    link = Path(work, "link")
    link.hardlink_to(secret)
    return _read(link)


@attempt("ENOENT EACCES", scenes="workspace")
def rename_into_workspace(work: str, secret: str) -> str:
    target = Path(work, "taken")
    Path(secret).rename(target)
    return _read(target)


@attempt("EACCES", scenes="workspace", each_scene="init")
def root_of_process(pid: int, secret: str) -> str:
    """Enter by /proc/PID/root of a process that was started before the box was shut."""
    os.scandir(f"/proc/{pid}/root").close()
    return _read(f"/proc/{pid}/root{secret}")


@attempt("EACCES", each_scene="init")
def cwd_of_process(pid: int) -> str:
    return str(list(Path(f"/proc/{pid}/cwd").iterdir()))


@attempt("ENOENT EACCES", scenes="workspace")
def own_root_link(secret: str) -> str:
    return _read(f"/proc/self/root/..{secret}")


@attempt("ENOENT EACCES", scenes="stdin_file")
def neighbour_of_stdin(neighbour: str) -> str:
    """Take the path of the file on stdin from /proc and open what lies next to it."""
    return _read(Path("/proc/self/fd/0").readlink().with_name(neighbour))


@attempt("EACCES EROFS ENOENT", scenes="stdin_file")
def stdin_for_writing() -> str:
    """Open the read-only file on stdin anew, for writing; anyone may write to it on the host."""
    with Path("/proc/self/fd/0").open("r+b", buffering=0) as again:
        return str(again.write(b"written"))


@attempt("ENOTDIR REFUSED", scenes="stdin_directory")
def openat_on_stdin(neighbour: str) -> str:
    """A directory on stdin is a way out."""
    return os.read(os.open(f"../{neighbour}", os.O_RDONLY, dir_fd=9), 100).decode()


@attempt("ABSENT", scenes="leaky_descriptors")
def inherited_descriptor() -> str:
    """Find a descriptor that nobody meant to hand over: any above 2, or a socket among the first."""
    held = {}
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            held[int(link.name)] = str(link.readlink())
    leaks = {fd: target for fd, target in held.items() if fd > 2 or target.startswith("socket:")}
    if not leaks:
        raise Denied("ABSENT", f"only {held}")
    return str(leaks)


@attempt("EPERM EACCES", scenes="workspace", needs_root=True)
def make_immutable(work: str) -> str:
    """Leave a file that the caller can't remove."""
    with Path(work, "stays").open("w") as file:
        fcntl.ioctl(file, _FS_IOC_SETFLAGS, struct.pack("l", _FS_IMMUTABLE_FL))
        flags = struct.unpack("l", fcntl.ioctl(file, _FS_IOC_GETFLAGS, bytes(8)))[0]
        fcntl.ioctl(file, _FS_IOC_SETFLAGS, struct.pack("l", flags & ~_FS_IMMUTABLE_FL))
    return f"flags {flags:#x}"


@attempt("EPERM", scenes="workspace", needs_root=True)
def chroot_escape(work: str, secret: str) -> str:
    """Be outside of the own root by changing it, then climb."""
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chroot(work)
    os.fchdir(here)
    for _ in range(64):
        os.chdir("..")
    return _read(f".{secret}")


@attempt("EPERM ENOSYS", scenes="workspace file_handle", needs_root=True)
def open_by_handle(work: str, handle: str) -> str:
    """Open the file by its handle, past every path and mount."""
    kind, raw = handle.split(":")
    name = bytes.fromhex(raw)
    packed = ctypes.create_string_buffer(
        len(name).to_bytes(4, "little") + int(kind).to_bytes(4, "little", signed=True) + name
    )
    mount = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
    return os.read(call("open_by_handle_at", mount, packed, os.O_RDONLY), 100).decode()


@attempt("EPERM ENOSYS ENOENT EACCES", scenes="workspace")
def detached_tree(secret: str) -> str:
    """A tree opened by path only isn't open yet for reading; open it again by its descriptor."""
    tree = call("open_tree", AT_FDCWD, secret.encode(), 0)
    return _read(f"/proc/self/fd/{tree}")


@attempt("ABSENT", scenes="host_mounts")
def host_mount_points(points: list[str]) -> str:
    """See the host's mounts in the mount table."""
    table = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    seen = sorted(table & set(points))
    if not seen:
        raise Denied("ABSENT", f"none of {len(points)} among {sorted(table)}")
    return str(seen)


@attempt("ENOENT EACCES", needs_root=True)
def shadow() -> str:
    return f"{len(_read('/etc/shadow'))} bytes"


@attempt("ABSENT", scenes="host_accounts")
def host_accounts(accounts: list[str]) -> str:
    """Learn the host's accounts from /etc/passwd."""
    found = {line.split(":")[0] for line in Path("/etc/passwd").read_text().splitlines()} & set(accounts)
    if not found:
        raise Denied("ABSENT")
    return str(sorted(found))


@attempt("ENOENT EACCES", scenes="home")
def home_folder(file: str) -> str:
    return _read(file)


@attempt("ABSENT EMPTY", scenes="environment")
def host_environment(variable: str) -> str:
    """Find what the caller has in its environment."""
    if variable not in os.environ:
        raise Denied("ABSENT", str(sorted(os.environ)))
    return os.environ[variable]


@attempt(
    "EPERM",
    cases={"proc": {"path": "/proc"}, "shm": {"path": "/dev/shm"}},
    outside=Outside.OWN_MOUNTS,
    needs_root=True,
)
def unmount(path: str) -> str:
    """Take away what covers something."""
    call("umount2", path.encode(), 2)
    return "detached"


@attempt("EPERM", scenes="masked", outside=Outside.OWN_MOUNTS)
def unmount_mask(path: str) -> str:
    call("umount2", path.encode(), 2)
    return "detached"
