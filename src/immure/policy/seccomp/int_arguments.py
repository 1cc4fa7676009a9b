"""Arguments of which the kernel takes the low 32 bits, for calls that profiles like to judge.

Source: the signatures of SYSCALL_DEFINE in Linux; `int`, `unsigned int` and types of that size.
"""

from __future__ import annotations

INT_ARGUMENTS: dict[str, tuple[int, ...]] = {
    "accept4": (0, 3),
    "chmod": (1,),
    "fchmod": (0, 1),
    "fchmodat": (0, 2),
    "fcntl": (0, 1),
    "flock": (0, 1),
    "futex": (1,),
    "getsockopt": (0, 1, 2),
    "ioctl": (0, 1),
    "kill": (0, 1),
    "mkdirat": (0, 2),
    "mknod": (1, 2),
    "mknodat": (0, 2, 3),
    "open": (1, 2),
    "openat": (0, 2, 3),
    "personality": (0,),
    "pipe2": (1,),
    "prctl": (0,),
    "prlimit64": (0, 1),
    "quotactl": (0,),
    "setns": (0, 1),
    "setsockopt": (0, 1, 2),
    "socket": (0, 1, 2),
    "socketpair": (0, 1, 2),
    "unlinkat": (0, 2),
}
