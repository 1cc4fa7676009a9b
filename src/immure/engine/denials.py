"""What a box refused a command, told from the events of its Sentry. No I/O."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Literal

from immure.engine.result import Denial
from immure.policy.seccomp.abi import find_abi
from immure.policy.seccomp.syscalls import name_of, numbers
from immure.runtimes.gvisor.trace.addresses import address_text
from immure.runtimes.gvisor.trace.events import TraceEvent
from immure.runtimes.gvisor.trace.session import Offer

Kind = Literal["FS", "NET", "SYS"]

#: Errors that say no, rather than that there is nothing of the kind.
_REFUSALS = frozenset((errno.EPERM, errno.EACCES, errno.EROFS, errno.ENETUNREACH, errno.EHOSTUNREACH))
#: Of these the Sentry says what they are about.
_NAMED: dict[str, Kind] = {
    **dict.fromkeys(("open", "openat", "creat", "execve", "execveat", "chdir"), "FS"),
    **dict.fromkeys(("connect", "bind"), "NET"),
    **dict.fromkeys(("setuid", "setgid", "setresuid", "setresgid", "ptrace"), "SYS"),
}
#: Of these it gives bare arguments, in which a path is an address.
_BARE: dict[str, Kind] = {
    **dict.fromkeys(("mkdir", "mkdirat", "mknod", "mknodat", "rmdir", "unlink", "unlinkat", "truncate"), "FS"),
    **dict.fromkeys(("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat"), "FS"),
    **dict.fromkeys(("chmod", "fchmod", "fchmodat", "chown", "fchown", "lchown", "fchownat"), "FS"),
    **dict.fromkeys(("sendto", "sendmsg"), "NET"),
    **dict.fromkeys(("kill", "tkill", "tgkill", "mount", "umount2", "setpriority"), "SYS"),
}
#: Of those what they may do to other processes, which takes no capability where the user is the same.
_OTHERS = frozenset(("kill", "tkill", "tgkill", "ptrace", "setpriority"))
_LAYER = "sentry"
#: The box's own first process, which starts commands.
_OURS = 1
#: Different ones that are kept of one command: what it tries is its own to choose.
MOST = 1000


def denial_points(offer: Offer) -> tuple[str, ...]:
    """The trace points at which refusals are seen, as far as this gVisor has them."""
    table = numbers(find_abi(os.uname().machine))
    named = [f"syscall/{name}/exit" for name in _NAMED]
    bare = [f"syscall/sysno/{table[name]}/exit" for name in _BARE if name in table]
    return tuple(point for point in (*named, *bare) if point in offer.points)


class Denials:
    """Collects them from events, each with how often it came."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}

    def take(self, event: TraceEvent) -> None:
        """Counts an event that is one. Of more than `MOST` different ones the others are left out."""
        if event.denied not in _REFUSALS or event.process.group_id == _OURS:
            return
        assert event.denied is not None
        call = _call_of(event.point)
        if call is None:
            return
        key = (call, _target(event.fields), errno.errorcode[event.denied])
        if key in self._counts or len(self._counts) < MOST:
            self._counts[key] = self._counts.get(key, 0) + 1

    def found(self) -> tuple[Denial, ...]:
        """In the order in which they came first."""
        return tuple(_denial(*key, count) for key, count in self._counts.items())


def _call_of(point: str) -> str | None:
    """The call of a point that is one's exit, if it is among those that are told of."""
    match point.split("/"):
        case ["syscall", name, "exit"]:
            return name if name in _NAMED else None
        case ["syscall", "sysno", number, "exit"] if number.isdecimal():
            name = name_of(find_abi(os.uname().machine), int(number))
            return name if name in _BARE else None
        case _:
            return None


def _target(fields: Mapping[str, object]) -> str:
    """What it was about, as the command said it; nothing where that is not told."""
    for name in ("pathname", "id", "pid"):
        if fields.get(name, "") != "":
            return str(fields[name])
    address = fields.get("address")
    return address_text(address) if isinstance(address, bytes) and address else ""


def _denial(call: str, target: str, error: str, count: int) -> Denial:
    kind = _NAMED.get(call) or _BARE[call]
    rule, fix = _explained(kind, call, error)
    return Denial(f"IMM-{kind}-{call.upper()}", _LAYER, call, target, f"{error}: {rule}", count, fix)


def _explained(kind: Kind, call: str, error: str) -> tuple[str, str]:
    """The rule that it came upon, and the smallest change of a spec that lets it through."""
    if kind == "NET":
        if call == "bind":
            return "ports and addresses of the box's own network", "bind a port from 1024 on"
        return "network.mode: none", "network: host, where the box may reach all that this host does"
    if call in _OTHERS:
        return "processes of other users", "let both have one user: processes.user"
    if kind == "SYS":
        return "processes.capabilities", "capabilities: the one that capabilities(7) names for the call"
    if error == "EROFS":
        return "files: mounted to be read", "mount a folder there with access rw, or a tmpfs"
    return "files: owner and mode", "mount a folder there with access rw, or set processes.user"
