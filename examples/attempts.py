"""The attempts of the demo: what each should meet in a box, and whether it did. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stage import Stage

DISK_MIB = 64
#: More than the box has. Outside, where nothing stops it, the program stops itself here.
FILL_MIB = DISK_MIB + 32
#: Tried inside alone: a control would leave this machine, or read real keys.
PUBLIC_TCP, PUBLIC_RESOLVER, PUBLIC_NAME = ("1.1.1.1", 443), ("8.8.8.8", 53), "example.com"

_ROOT = {"ENOENT": "root: not mounted"}
_PROCESSES = {"EACCES": "process: closed"}
_LOOPBACK = {"ECONNREFUSED": "network: its own"}
_NO_ROUTE = {"ENETUNREACH": "network: no route"}
_NO_RESOLVER = {"EAI_AGAIN": "network: no DNS"}
_READ_ONLY = {"EROFS": "mount: read-only"}
_FULL = {"ENOSPC": f"limit: disk {DISK_MIB} MiB"}


@dataclass(frozen=True)
class Attempt:
    """`names` are telemetry.py's. `walls`: the errors that count as a denial, and which wall gives each."""

    title: str
    names: tuple[str, ...]
    walls: Mapping[str, str]
    control: bool = True


@dataclass(frozen=True)
class Row:
    """One attempt outside and inside. `problem` is empty where it was denied and its control succeeded."""

    title: str
    outside: str
    inside: str
    wall: str
    problem: str


def planned(stage: Stage, home: str) -> list[Attempt]:
    """Attempts in the order in which they are made. `home` is the caller's real one."""
    listener, resolver = (f"{host}:{port}" for host, port in (stage.listener, stage.resolver))
    roads = ("list", "key", "key by symlink", "key by ..", "key by /proc")
    return [
        Attempt("list ~/.ssh", ("list 0",), _ROOT),
        Attempt("read ~/.ssh/id_ed25519", ("key 0",), _ROOT),
        Attempt("… by a symlink in /tmp", ("key by symlink 0",), _ROOT),
        Attempt("… by ../ from the folder", ("key by .. 0",), _ROOT),
        Attempt("… by /proc/PARENT/root", ("key by /proc 0",), _PROCESSES),
        Attempt(f"these five in {home}", tuple(f"{road} 1" for road in roads), _ROOT | _PROCESSES, control=False),
        Attempt("connect to your listener", (f"tcp {listener}",), _LOOPBACK),
        Attempt("connect to 1.1.1.1:443", (f"tcp {':'.join(map(str, PUBLIC_TCP))}",), _NO_ROUTE, control=False),
        Attempt("ask your resolver", (f"dns {resolver}",), _LOOPBACK),
        Attempt("ask 8.8.8.8:53", (f"dns {':'.join(map(str, PUBLIC_RESOLVER))}",), _NO_ROUTE, control=False),
        Attempt(f"resolve {PUBLIC_NAME}", (f"resolve {PUBLIC_NAME}",), _NO_RESOLVER, control=False),
        Attempt("add a file to the folder", ("create",), _READ_ONLY),
        Attempt("change orders.csv", ("append",), _READ_ONLY),
        Attempt("fill the disk", ("fill",), _FULL),
    ]


def compare(attempt: Attempt, outside: Mapping[str, Any], inside: Mapping[str, Any]) -> Row:
    """`outside` and `inside` are the program's findings by name."""
    seen_outside = [outside.get(name) for name in attempt.names] if attempt.control else []
    seen_inside = [inside.get(name) for name in attempt.names]
    errors = _unique([one["error"] or "no error" for one in seen_inside if one is not None])
    return Row(
        title=attempt.title,
        outside=_outside(attempt, seen_outside),
        inside=_inside(seen_inside, errors),
        wall=", ".join(_unique([attempt.walls[error] for error in errors if error in attempt.walls])),
        problem=_problem(attempt, seen_outside, seen_inside),
    )


def _outside(attempt: Attempt, findings: Sequence[Any]) -> str:
    if not attempt.control:
        return "not tried"
    return "succeeded" if all(one is not None and one["succeeded"] for one in findings) else "failed"


def _inside(findings: Sequence[Any], errors: Sequence[str]) -> str:
    if any(one is not None and one["succeeded"] for one in findings):
        return "SUCCEEDED"
    return "denied " + " ".join(errors) if errors else "no word of it"


def _problem(attempt: Attempt, outside: Sequence[Any], inside: Sequence[Any]) -> str:
    if any(one is None for one in inside):
        return f"{attempt.title}: the program said nothing of it in the box"
    if any(one["succeeded"] for one in inside):
        return f"{attempt.title}: succeeded in the box"
    strange = _unique([one["error"] for one in inside if one["error"] not in attempt.walls])
    if strange:
        return f"{attempt.title}: failed in the box, but {' '.join(strange)} is no denial by a wall"
    if not all(one is not None and one["succeeded"] for one in outside):
        return f"{attempt.title}: failed outside too, so that nothing is shown"
    return ""


def _unique(items: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(items))
