"""The guard: the filter that every box has beside its profile's.

A box may have an idmapped, writable mount of the caller's files. A setuid file made there belongs to the
caller on the host, whatever `nosuid` says inside. So no call may set S_ISUID or S_ISGID, and calls whose mode
a filter can't see (openat2's is behind a pointer, io_uring makes calls without entering the kernel) look
missing, so that programs fall back on those that it can.

Nor may a call put into a pipe what has not come yet: the kernel holds the pipe's lock until it comes, and whoever reads
or closes that pipe waits for the lock, where no signal reaches it. A command's output is such a pipe, and its caller
reads it.
"""

from __future__ import annotations

from functools import cache

from .actions import EINVAL, ENOSYS, EPERM, Action
from .profile import Architecture, ArchMap, Arg, Operator, Profile, Rule

S_ISUID = 0o4000
S_ISGID = 0o2000
O_CREAT = 0o100
O_TMPFILE_BIT = 0o20000000
"""__O_TMPFILE of `asm-generic/fcntl.h`, without the O_DIRECTORY that O_TMPFILE adds."""

# Which argument is the mode. The kernel takes 16 bits of it (umode_t); both bits looked at are among them.
_MODE_ARGUMENT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "creat": 1, "mknod": 1, "mknodat": 2}
# Which arguments are flags and mode; the mode counts only where a file may be made.
_OPEN_ARGUMENTS = {"open": (1, 2), "openat": (2, 3)}
_OPAQUE = ("fchmodat2", "openat2", "io_uring_setup")
# From a terminal or a socket into a pipe: `splice_file_to_pipe` of the kernel's fs/splice.c.
_LOCKING = ("splice", "sendfile", "sendfile64")


@cache
def guard_profile() -> Profile:
    """The guard as a profile, for all ABIs: it allows whatever it has no rule for."""
    return Profile(
        default_action=Action.ALLOW,
        arch_map=(
            ArchMap(Architecture.X86_64, (Architecture.X86, Architecture.X32)),
            ArchMap(Architecture.AARCH64, (Architecture.ARM,)),
            ArchMap(Architecture.S390X, (Architecture.S390,)),
        ),
        syscalls=(*_mode_rules(), *_open_rules(), _opaque_rule(), _locking_rule()),
        comment="no setuid or setgid file can be made, by any road, and no pipe's lock be held",
    )


def _mode_rules() -> list[Rule]:
    return [
        _deny(call, (_has(argument, bit),)) for call, argument in _MODE_ARGUMENT.items() for bit in (S_ISUID, S_ISGID)
    ]


def _open_rules() -> list[Rule]:
    return [
        _deny(call, (_has(flags, creates), _has(mode, bit)))
        for call, (flags, mode) in _OPEN_ARGUMENTS.items()
        for creates in (O_CREAT, O_TMPFILE_BIT)
        for bit in (S_ISUID, S_ISGID)
    ]


def _opaque_rule() -> Rule:
    return Rule(
        action=Action.ERRNO,
        errno_ret=ENOSYS,
        names=_OPAQUE,
        comment="their mode is in memory, which a filter can't read; callers fall back on ENOSYS",
    )


def _locking_rule() -> Rule:
    return Rule(
        action=Action.ERRNO,
        errno_ret=EINVAL,
        names=_LOCKING,
        comment="what a descriptor is, a filter can't see; callers read and write on EINVAL",
    )


def _deny(call: str, conditions: tuple[Arg, ...]) -> Rule:
    return Rule(action=Action.ERRNO, errno_ret=EPERM, names=(call,), args=conditions)


def _has(index: int, bit: int) -> Arg:
    return Arg(index=index, op=Operator.MASKED_EQ, value=bit, value_two=bit)
