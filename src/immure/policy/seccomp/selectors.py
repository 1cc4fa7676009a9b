"""Arguments that choose what a call does: a command, an option, a domain, a kind of object.

A profile that is learned names their values where they are few. Sizes, descriptors, addresses, offsets and flags that
only vary how something is done are not here: their values are a run's own, not the program's. Source: the manual page
of each call.
"""

from __future__ import annotations

SELECTORS: dict[str, tuple[int, ...]] = {
    "arch_prctl": (0,),
    "bpf": (0,),
    "clone": (0,),
    "epoll_ctl": (1,),
    "fcntl": (1,),
    "fcntl64": (1,),
    "fsconfig": (1,),
    "ioctl": (1,),
    "ipc": (0,),
    "kcmp": (2,),
    "keyctl": (0,),
    "landlock_add_rule": (1,),
    "lookup_dcookie": (0,),
    "membarrier": (0,),
    "modify_ldt": (0,),
    "msgctl": (1,),
    "personality": (0,),
    "pkey_alloc": (1,),
    "prctl": (0,),
    "ptrace": (0,),
    "quotactl": (0,),
    "quotactl_fd": (1,),
    "reboot": (2,),
    "seccomp": (0, 1),
    "semctl": (2,),
    "setns": (1,),
    "setsockopt": (1, 2),
    "shmctl": (1,),
    "socket": (0, 1),
    "socketcall": (0,),
    "socketpair": (0, 1),
    "syslog": (0,),
    "unshare": (0,),
}
"""The call's name → the indices of such arguments. A pointer is never among them."""
