"""What a Sentry is asked to report: from the names of points to the session's configuration. No I/O.

Source: gVisor's `pkg/sentry/seccheck/config.go`, and the text of `runsc trace metadata`.

A Sentry can't send text that is no UTF-8: it leaves out such an event, and counts nothing (seen in 2024-07 and
2026-09). A command's name and working directory are whatever the command says, so they are part of no event unless
asked for: with them, a command named by such text would be seen nowhere. A call on such a path is seen by its number
alone, at the point `syscall/sysno/NUMBER/exit`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import msgspec
from msgspec import Struct

from immure.errors import RuntimeUnavailable, SpecError

#: The only one there is, gVisor says.
SESSION_NAME = "Default"
#: Who and when, by what no command chooses.
DEFAULT_CONTEXT = ("time", "thread_id", "task_start_time", "group_id", "thread_group_start_time", "container_id")
#: What commands can choose: see above.
CHOSEN_CONTEXT = ("process_name", "cwd")
#: What is of interest where nobody says what is: processes, and calls that reach for something. As far as there is it.
DEFAULT_POINTS = (
    "container/start",
    "sentry/clone",
    "sentry/execve",
    "sentry/task_exit",
    "syscall/open/exit",
    "syscall/openat/exit",
    "syscall/creat/exit",
    "syscall/execve/exit",
    "syscall/execveat/exit",
    "syscall/connect/exit",
    "syscall/bind/exit",
    "syscall/ptrace/exit",
)

_POINT = re.compile(r"Name: (\S+), optional fields: \[([^]\n]*)\], context fields: \[([^]\n]*)\]")
_SINK = re.compile(r"^Name: (\w+)$", re.MULTILINE)
_DROPPED = re.compile(r'^\s*Sink: "remote", dropped: (\d+)$', re.MULTILINE)
_GLOB = re.compile(r"[*?[]")


class Point(Struct, frozen=True):
    """A trace point, and what it can say beside what it always says."""

    name: str
    optional_fields: tuple[str, ...] = ()
    context_fields: tuple[str, ...] = ()


class Offer(Struct, frozen=True):
    """What one version of gVisor can report."""

    points: Mapping[str, Point]


def read_metadata(text: str) -> Offer:
    """What `runsc trace metadata` has printed. Raises RuntimeUnavailable where that is something else."""
    points = {name: Point(name, _words(optional), _words(context)) for name, optional, context in _POINT.findall(text)}
    if not points or "remote" not in _SINK.findall(text):
        raise RuntimeUnavailable(
            "this runsc reports no events",
            need="trace points and a sink named remote",
            have=f"`runsc trace metadata`: {len(points)} points",
        )
    return Offer(points)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|")) if text else ()


def read_dropped(text: str) -> int:
    """How many events the Sentry has dropped in all, of what `runsc trace list` has printed; 0 without a session."""
    return sum(map(int, _DROPPED.findall(text)))


def default_points(offer: Offer) -> tuple[str, ...]:
    """DEFAULT_POINTS, as far as there are."""
    return tuple(name for name in DEFAULT_POINTS if name in offer.points)


def choose_points(wanted: Sequence[str], offer: Offer, *, numbers: Mapping[str, int] | None = None) -> tuple[str, ...]:
    """The points that are meant, in order and once each. `*`, `?` and `[…]` stand for anything within one part.

    Raises SpecError for a point that this version lacks, and for a pattern that fits none. `numbers` are of system
    calls: by its number there is a point for each.
    """
    chosen: dict[str, None] = {}
    for place, name in enumerate(wanted):
        found = [name] if name in offer.points else _fitting(name, offer.points) if _GLOB.search(name) else []
        if not found:
            raise SpecError(
                f"this gVisor has no trace point {name!r}"
                if not _GLOB.search(name)
                else f"no trace point fits {name!r}",
                path=f"points[{place}]",
                need=f"one of the {len(offer.points)} that `runsc trace metadata` lists",
                hint=_hint(name, offer, numbers or {}),
            )
        chosen.update(dict.fromkeys(found))
    if not chosen:
        raise SpecError("no trace point", path="points", need="at least one, such as 'sentry/execve'")
    return tuple(chosen)


def _fitting(pattern: str, names: Iterable[str]) -> list[str]:
    parts = pattern.split("/")
    return [name for name in names if _fits(parts, name.split("/"))]


def _fits(patterns: list[str], parts: list[str]) -> bool:
    return len(patterns) == len(parts) and all(map(fnmatchcase, parts, patterns))


def _hint(name: str, offer: Offer, numbers: Mapping[str, int]) -> str | None:
    parts = name.split("/")
    if len(parts) == 3 and parts[0] == "syscall" and parts[1] in numbers:
        raw = f"syscall/sysno/{numbers[parts[1]]}/{parts[2]}"
        if raw in offer.points:
            return f"{raw!r} shows the call's bare arguments"
    near = get_close_matches(name, offer.points, n=1)
    return f"did you mean {near[0]!r}?" if near else None


def make_session(
    points: Sequence[str],
    offer: Offer,
    endpoint: str,
    *,
    context: Sequence[str] = DEFAULT_CONTEXT,
    optional: Sequence[str] = (),
    retries: int = 4,
    backoff_us: int = 50,
    backoff_max_us: int = 10_000,
) -> bytes:
    """The session as `runsc trace create --config` reads it.

    `points` are those of `choose_points`. `context` and `optional` are fields; each point gets those that it has. The
    Sentry connects to the socket at `endpoint`. Where that takes nothing, it tries `retries` times more, after a pause
    that doubles from `backoff_us` up to `backoff_max_us`, and then drops the event; the command waits as long.

    Raises SpecError for a field that none of the points has.
    """
    known = [offer.points[name] for name in points]
    _check_fields("context", context, {field for point in known for field in point.context_fields})
    _check_fields("optional", optional, {field for point in known for field in point.optional_fields})
    return msgspec.json.encode(
        {
            "name": SESSION_NAME,
            "points": [
                {
                    "name": point.name,
                    "optional_fields": [field for field in point.optional_fields if field in optional],
                    "context_fields": [field for field in point.context_fields if field in context],
                }
                for point in known
            ],
            "sinks": [
                {
                    "name": "remote",
                    "config": {
                        "endpoint": endpoint,
                        "retries": retries,
                        "backoff": f"{backoff_us}us",
                        "backoff_max": f"{max(backoff_us, backoff_max_us)}us",
                    },
                }
            ],
        }
    )


def init_config(session: bytes) -> bytes:
    """A session as `runsc --pod-init-config` reads it, from the box's start on."""
    return msgspec.json.encode({"trace_session": msgspec.Raw(session)})


def _check_fields(path: str, wanted: Sequence[str], offered: set[str]) -> None:
    for place, field in enumerate(wanted):
        if field not in offered:
            near = get_close_matches(field, offered, n=1)
            raise SpecError(
                f"none of these trace points has a field {field!r}, in this gVisor",
                path=f"{path}[{place}]",
                need=", ".join(sorted(offered)) or "none: they have no such fields",
                hint=f"did you mean {near[0]!r}?" if near else None,
            )
