"""Landlock: the kernel's ABIs as data, and rules derived from what a box has mounted.

Source of the rights: the kernel's Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

from enum import IntFlag

from msgspec import Struct


class Fs(IntFlag):
    """LANDLOCK_ACCESS_FS_ rights."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15
    RESOLVE_UNIX = 1 << 16


class Scope(IntFlag):
    """LANDLOCK_SCOPE_ flags."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


_FIRST_13 = Fs((1 << 13) - 1)

#: The rights that came with each ABI, and the kernel that brought it.
_RIGHTS_SINCE: tuple[tuple[int, Fs], ...] = (
    (1, _FIRST_13),
    (2, Fs.REFER),
    (3, Fs.TRUNCATE),
    (5, Fs.IOCTL_DEV),
    (9, Fs.RESOLVE_UNIX),
)
_SCOPES_SINCE = 6
_TCP_SINCE = 4
#: LANDLOCK_ACCESS_NET_BIND_TCP and _CONNECT_TCP.
TCP = 0b11

#: The newest that is known here. What newer ones can do more is not asked of them.
NEWEST_ABI = 10
#: The least ABI that counts as file control: before it, truncation is out of its reach.
LEAST_ABI = 3

READ = Fs.EXECUTE | Fs.READ_FILE | Fs.READ_DIR
#: Everything that can be done beneath a writable folder, apart from making device nodes.
WRITE = (
    READ
    | Fs.WRITE_FILE
    | Fs.REMOVE_DIR
    | Fs.REMOVE_FILE
    | Fs.MAKE_DIR
    | Fs.MAKE_REG
    | Fs.MAKE_SOCK
    | Fs.MAKE_FIFO
    | Fs.MAKE_SYM
    | Fs.REFER
    | Fs.TRUNCATE
    | Fs.RESOLVE_UNIX
)
DEVICES = Fs.READ_FILE | Fs.READ_DIR | Fs.WRITE_FILE | Fs.TRUNCATE | Fs.IOCTL_DEV
PROC = Fs.READ_FILE | Fs.READ_DIR | Fs.WRITE_FILE | Fs.TRUNCATE
#: Rights that the kernel accepts in a rule on something that is no folder.
FILE_RIGHTS = Fs.EXECUTE | Fs.WRITE_FILE | Fs.READ_FILE | Fs.TRUNCATE | Fs.IOCTL_DEV | Fs.RESOLVE_UNIX


class Ruleset(Struct, frozen=True):
    """What `landlock_create_ruleset` handles, and the rules added to it."""

    handled_fs: int
    scoped: int
    rules: tuple[tuple[str, int], ...]


def handled_fs(abi: int) -> Fs:
    """Every file right that `abi` knows."""
    rights = Fs(0)
    for since, added in _RIGHTS_SINCE:
        if abi >= since:
            rights |= added
    return rights


def scopes(abi: int) -> Scope:
    """Every scope that `abi` knows: from ABI 6 on, signals and abstract sockets stay inside the domain."""
    return Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL if abi >= _SCOPES_SINCE else Scope(0)


def handled_tcp(abi: int) -> int:
    """The TCP rights, for a box that has no network namespace; 0 where this ABI has none."""
    return TCP if abi >= _TCP_SINCE else 0


def compile_ruleset(abi: int, wanted: tuple[tuple[str, Fs], ...]) -> Ruleset:
    """The ruleset for a kernel of `abi`; rights that it does not know are left out of handled set and rules alike.

    The result handles every right of the ABI, so that what no rule allows is denied.
    """
    handled = handled_fs(abi)
    rules = tuple((path, int(access & handled)) for path, access in wanted if access & handled)
    return Ruleset(handled_fs=int(handled), scoped=int(scopes(abi)), rules=rules)


def uncovered(abi: int) -> tuple[str, ...]:
    """What a domain of this ABI does not stop, in words for the report."""
    gaps = ["chdir, stat, chmod, chown, xattr, utime and fcntl on what is in sight"]
    if abi < LEAST_ABI:
        gaps.append("truncation")
    if abi < 5:
        gaps.append("ioctl on devices")
    if abi < 6:
        gaps.append("signals and abstract unix sockets out of the domain")
    if abi < 9:
        gaps.append("connecting to unix sockets by path")
    return tuple(gaps)
