"""System calls that the library of Python 3.11 has no name for, one wrapper each. Each raises OSError."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable
from typing import Final, TypeVar

CLONE_FS: Final = 0x200
CLONE_NEWNS: Final = 0x20000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_IDMAP = 0x1, 0x2, 0x4, 0x8, 0x00100000

_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
# The same on every architecture: include/uapi/asm-generic/unistd.h.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442

_libc = ctypes.CDLL(None, use_errno=True)
_Given = TypeVar("_Given")


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread alone: what it starts is in new namespaces."""
    _checked(_libc.unshare(flags))


def setns(fd: int, kind: int) -> None:
    """setns(2), for the calling thread alone."""
    _checked(_libc.setns(fd, kind))


def open_tree(fd: int) -> int:
    """A detached copy of the mount that `fd` is in, with what `fd` is as its root. Linux 5.2."""
    flags = ctypes.c_uint(_AT_EMPTY_PATH | _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    return _checked(_libc.syscall(ctypes.c_long(_SYS_OPEN_TREE), fd, b"", flags))


def mount_setattr(fd: int, attributes: int, user_namespace: int = 0) -> None:
    """Sets attributes of a detached mount. mount_setattr(2), Linux 5.12."""
    wanted = struct.pack("=QQQQ", attributes, 0, 0, user_namespace)
    size = ctypes.c_size_t(len(wanted))
    _checked(_libc.syscall(ctypes.c_long(_SYS_MOUNT_SETATTR), fd, b"", ctypes.c_uint(_AT_EMPTY_PATH), wanted, size))


def move_mount(fd: int, target: str) -> None:
    """Attaches a detached mount at an absolute path. Linux 5.2."""
    flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
    _checked(_libc.syscall(ctypes.c_long(_SYS_MOVE_MOUNT), fd, b"", _AT_FDCWD, os.fsencode(target), flags))


def unmount(target: str) -> None:
    """Takes a mount out of sight; it ends with its last user. umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW))


def in_own_thread(does: Callable[[], _Given]) -> _Given:
    """What `does` gives, done in a thread whose namespaces nobody else has, and which ends with it."""
    given: list[_Given] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            given.append(does())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="immure-namespaces")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return given[0]


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
