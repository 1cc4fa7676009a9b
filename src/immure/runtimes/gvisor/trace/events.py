"""What the Sentry saw, as events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from msgspec import Struct

from immure.runtimes.gvisor.trace.schema import CALLS, POINTS, RAW, RAW_TYPE
from immure.runtimes.gvisor.trace.wire import Value, decode

#: The number of a system call to its name, where that is known.
NameOf = Callable[[int], "str | None"]

#: Events of our own: so many were dropped before this one; a datagram that is no event; one of a kind
#: that only a newer version of us knows.
DROPPED, MALFORMED, UNKNOWN = "trace/dropped", "trace/malformed", "trace/unknown"


class TraceCredentials(Struct, frozen=True):
    """The user and group ids of a thread, as its own user namespace counts them."""

    real_uid: int
    effective_uid: int
    saved_uid: int
    real_gid: int
    effective_gid: int
    saved_gid: int


class TraceProcess(Struct, frozen=True):
    """Who it was. What was not asked for, or is not known to this version of gVisor, is 0, empty or None.

    Ids are those of the box's root pid namespace, and times nanoseconds since 1970. `group_id` is what getpid() gives.
    """

    thread_id: int = 0
    thread_start_time_ns: int = 0
    group_id: int = 0
    group_start_time_ns: int = 0
    container_id: str = ""
    credentials: TraceCredentials | None = None
    cwd: str = ""
    name: str = ""
    parent_group_id: int = 0
    is_exec_session: bool = False


class TraceEvent(Struct, frozen=True):
    """One thing that the Sentry saw at a trace point.

    `fields` has everything that the point says, under gVisor's names: numbers, text (surrogateescape where it is no
    UTF-8), bytes (socket addresses and hashes), lists and, for what is nested, more of the same. What the Sentry left
    out is 0, empty or None.

    At a system call's exit `result` is what it gave, or `denied` the errno that it failed with; both are None where a
    signal interrupted it and the kernel starts it anew.

    Three points are of our own making: `trace/dropped` with `count`, where events had to be dropped;
    `trace/malformed` with `reason`, `type` and `bytes`, where what it sent was no event; `trace/unknown` with `type`
    and `bytes` for events that this version can't read.
    """

    point: str
    time_ns: int
    process: TraceProcess
    fields: dict[str, Value]
    result: int | None = None
    denied: int | None = None


_NOBODY = TraceProcess()
#: ERESTARTSYS of the kernel's `linux/errno.h`: from here on no program sees them.
_FIRST_RESTART = 512


def own_event(point: str, **fields: Value) -> TraceEvent:
    """An event that no Sentry sent."""
    return TraceEvent(point, 0, _NOBODY, dict(fields))


def read_event(kind: int, payload: bytes, name_of: NameOf) -> TraceEvent:
    """The event of a message. Raises Malformed."""
    point = POINTS.get(kind)
    if point is not None:
        return _event(point[0], decode(point[1], payload))
    message = RAW if kind == RAW_TYPE else CALLS.get(kind)
    if message is None:
        return own_event(UNKNOWN, type=kind, bytes=len(payload))
    fields = decode(message, payload)
    number = cast("int", fields["sysno"])
    name = None if kind == RAW_TYPE else name_of(number)
    phase = "enter" if fields["exit"] is None else "exit"
    return _event(f"syscall/{name or f'sysno/{number}'}/{phase}", fields)


def _event(point: str, fields: dict[str, Value]) -> TraceEvent:
    context = cast("dict[str, Any] | None", fields.pop("context_data"))
    ended = cast("dict[str, int] | None", fields.pop("exit", None))
    result = denied = None
    if ended is not None:
        errno = ended["errorno"]
        result = None if errno else ended["result"]
        denied = errno if 0 < errno < _FIRST_RESTART else None
    if context is None:
        return TraceEvent(point, 0, _NOBODY, fields, result, denied)
    return TraceEvent(point, context["time_ns"], _process(context), fields, result, denied)


def _process(context: dict[str, Any]) -> TraceProcess:
    ids = context["credentials"]
    return TraceProcess(
        context["thread_id"],
        context["thread_start_time_ns"],
        context["thread_group_id"],
        context["thread_group_start_time_ns"],
        context["container_id"],
        None if ids is None else TraceCredentials(**ids),
        context["cwd"],
        context["process_name"],
        context["parent_thread_group_id"],
        context["is_exec_session"],
    )
