"""The filters of a box, and who installs them."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from immure.errors import ProfileError
from immure.policy import capabilities
from immure.policy.seccomp import (
    ABIS,
    Action,
    Filter,
    Profile,
    asking,
    compile_filter,
    guard_profile,
    numbers,
    outcomes,
)
from immure.policy.seccomp.actions import ALLOW, PERMISSIVE
from immure.policy.seccomp.bpf import pack, unpack

_CLONE_VFORK = 0x4111
_FORK = 0x11
_NEW_LISTENER, _WAIT_KILLABLE_RECV = 8, 32
#: Since when a call that waits for an answer is interrupted by nothing but a kill.
_WAIT_KILLABLE_SINCE = (5, 19)
_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT = 4, 8, 47
_Calls = tuple[tuple[str, tuple[int | None, ...]], ...]
_PLAIN_CALLS = (
    *("brk", "capset", "chdir", "close", "close_range", "dup2", "dup3", "epoll_ctl", "epoll_pwait", "epoll_wait"),
    *("execve", "exit", "exit_group", "futex", "getcwd", "kill", "madvise", "mmap", "mremap", "munmap", "prlimit64"),
    *("recvmsg", "restart_syscall", "rt_sigprocmask", "rt_sigreturn", "sendmsg", "setresgid", "setresuid", "setsid"),
    *("read", "wait4", "write"),
)
#: What the stem, and a guest's hand, call to start, watch and end commands, and a command's process before its execve,
#: with the arguments that matter. `native/src/init/start.rs`, `command.rs`, `native/src/guest/hand.rs` and `next.rs`
#: make these calls; an ABI lacks some of the names.
_STEM_CALLS: _Calls = (
    *((name, ()) for name in _PLAIN_CALLS),
    ("clone", (_CLONE_VFORK,)),
    ("clone", (_FORK,)),
    *(("prctl", (option,)) for option in (_PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_CAP_AMBIENT)),
)
_O_RDWR, _O_NOCTTY, _O_CLOEXEC = 0o2, 0o400, 0o2000000
_TIOCSPTLCK, _TIOCGPTN, _TIOCSCTTY = 0x40045431, 0x80045430, 0x540E
#: And to make a terminal, and make it a command's own: `native/src/sys/terminal.rs`, `native/src/init/command.rs`.
_TERMINAL_CALLS: _Calls = (
    ("openat", (None, None, _O_RDWR | _O_NOCTTY | _O_CLOEXEC)),
    *(("ioctl", (None, request)) for request in (_TIOCSPTLCK, _TIOCGPTN, _TIOCSCTTY)),
)


class BoxFilters(Struct, frozen=True):
    """The programs of a box in the order of installation, and how many of them its stem can bear itself.

    `terminals`: under those the stem can make terminals. `default_deny`: a call that the profile does not name is
    refused. Where the last program asks a supervisor, `listener_flags` are its flags of seccomp(2), and `decides` is
    the program by which the supervisor is to answer.
    """

    programs: tuple[bytes, ...]
    inherited: int
    default_deny: bool
    terminals: bool = True
    listener_flags: int = 0
    decides: bytes | None = None

    @property
    def inherited_within(self) -> int:
        """How many of them what starts commands in a machine can bear, which gives them terminals as well."""
        return self.inherited if self.terminals else 0


def compile_filters(profile: Profile, *, arch: str, kernel: tuple[int, int], keep: int) -> BoxFilters:
    """The filters for boxes whose commands keep the capabilities `keep`.

    Profile and guard are one program where that is within the kernel's limit. Raises ProfileError as `compile_filter`,
    and for a profile that asks a supervisor, which boxes do not have.
    """
    _refuse_listeners(profile)
    filters, inherited = _filters(profile, arch, kernel, keep)
    closed = profile.default_action not in PERMISSIVE
    terminals = _allow(filters[:inherited], arch, _TERMINAL_CALLS)
    return BoxFilters(tuple(one.to_bytes() for one in filters), inherited, closed, terminals)


def _refuse_listeners(profile: Profile) -> None:
    places = [("$.defaultAction", profile.default_action)]
    places += [(f"$.syscalls[{index}].action", rule.action) for index, rule in enumerate(profile.rules)]
    for path, action in places:
        if action is Action.NOTIFY:
            raise ProfileError(
                "SCMP_ACT_NOTIFY needs a listener, and a box has none",
                path=path,
                need="another action",
                hint="use SCMP_ACT_ERRNO; `immure policy learn` shows every call",
            )


def asking_filters(filters: BoxFilters, *, arch: str, kernel: tuple[int, int]) -> BoxFilters:
    """The same, but that the last asks a supervisor about all that it does not end a process for."""
    flags = _NEW_LISTENER | (_WAIT_KILLABLE_RECV if kernel >= _WAIT_KILLABLE_SINCE else 0)
    last, big_endian = filters.programs[-1], ABIS[arch].big_endian
    asks = pack(asking(unpack(last, big_endian=big_endian)), big_endian=big_endian)
    return BoxFilters((*filters.programs[:-1], asks), 0, filters.default_deny, True, flags, last)


def _filters(profile: Profile, arch: str, kernel: tuple[int, int], keep: int) -> tuple[list[Filter], int]:
    kept = frozenset(f"CAP_{name}" for bit, name in enumerate(capabilities.NAMES) if keep >> bit & 1)
    try:
        both = compile_filter(profile, arch=arch, capabilities=kept, kernel=kernel, beside=guard_profile())
    except ProfileError:
        # The profile goes last: it may refuse seccomp(2) itself.
        guard = compile_filter(guard_profile(), arch=arch, kernel=kernel)
        alone = compile_filter(profile, arch=arch, capabilities=kept, kernel=kernel)
        return [guard, alone], 0
    return [both], int(_allow([both], arch, _STEM_CALLS))


def _allow(filters: Sequence[Filter], arch: str, calls: _Calls) -> bool:
    """Whether calls with these arguments get through; None stands for any value."""
    abi = ABIS[arch]
    table = numbers(abi)
    return all(
        outcomes(one.instructions, table[name], abi.audit, args, big_endian=abi.big_endian) == frozenset({ALLOW})
        for one in filters
        for name, args in calls
        if name in table
    )
