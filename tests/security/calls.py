"""Raw system calls of x86-64, by name: the C library would choose another call, or trim the arguments."""

from __future__ import annotations

import ctypes
import errno
import os

NUMBERS = {
    "open": 2, "ioctl": 16, "shmget": 29, "shmat": 30, "getpid": 39, "socket": 41, "clone": 56, "semget": 64,
    "msgget": 68, "creat": 85, "chmod": 90, "fchmod": 91, "ptrace": 101, "syslog": 103, "capget": 125,
    "capset": 126, "rt_sigqueueinfo": 129, "mknod": 133, "personality": 135, "vhangup": 153,
    "pivot_root": 155, "adjtimex": 159, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166,
    "swapon": 167, "swapoff": 168, "reboot": 169, "sethostname": 170, "setdomainname": 171, "iopl": 172,
    "ioperm": 173, "init_module": 175, "delete_module": 176, "quotactl": 179, "tkill": 200,
    "sched_setaffinity": 203, "clock_settime": 227, "tgkill": 234, "kexec_load": 246, "add_key": 248,
    "request_key": 249, "keyctl": 250, "ioprio_set": 251, "openat": 257, "mknodat": 259, "linkat": 265,
    "fchmodat": 268, "unshare": 272, "move_pages": 279, "rt_tgsigqueueinfo": 297, "perf_event_open": 298,
    "fanotify_init": 300, "prlimit64": 302, "name_to_handle_at": 303, "open_by_handle_at": 304,
    "clock_adjtime": 305, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312,
    "finit_module": 313, "seccomp": 317, "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
    "pidfd_send_signal": 424, "io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fspick": 433, "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438,
    "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443, "fchmodat2": 452,
}  # fmt: skip

AT_FDCWD = -100
X32 = 0x4000_0000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: int | bytes | ctypes.Array | ctypes.Structure | None) -> int:
    """Make the call `name` and return its result."""
    return call_number(NUMBERS[name], *arguments)


def call_number(number: int, *arguments: int | bytes | ctypes.Array | ctypes.Structure | None) -> int:
    ctypes.set_errno(0)
    result = _libc.syscall(ctypes.c_long(number), *map(_word, arguments))
    if result < 0:
        raise_errno(ctypes.get_errno())
    return result


def raise_errno(number: int) -> None:
    raise OSError(number, os.strerror(number))


def function(name: str) -> ctypes._CFuncPtr:
    """A function of the C library that Python has no face for; see `checked`."""
    return getattr(_libc, name)


def checked(result: int) -> int:
    """The result of a C function, or its error."""
    if result < 0:
        raise_errno(ctypes.get_errno() or errno.EIO)
    return result


def _word(argument: int | bytes | ctypes.Array | ctypes.Structure | None) -> object:
    match argument:
        case None:
            return ctypes.c_void_p(None)
        case int():
            # All 64 bits: what the kernel ignores of them is part of some attempts.
            return ctypes.c_ulong(argument & 0xFFFF_FFFF_FFFF_FFFF)
        case bytes():
            return ctypes.c_char_p(argument)
        case _:
            return ctypes.byref(argument)
