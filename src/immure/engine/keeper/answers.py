"""A keeper's answers as values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from immure.engine.face import State
from immure.engine.keeper.client import Asked, begin
from immure.engine.log import Logs
from immure.engine.result import BoxStats


class KeptCommand(msgspec.Struct, frozen=True):
    """A detached command of a kept box: its number in the box's log, and how it ended, where it has.

    `state` is `running`, the kind of its `Exit`, or `lost` where the box fell under it; `code` and `signal` are those
    of its `Exit`.
    """

    number: int
    argv: tuple[str, ...]
    state: Literal["running", "exited", "signaled", "timeout", "oom", "output", "refused", "lost"]
    code: int | None
    signal: int | None


class KeptInfo(msgspec.Struct, frozen=True):
    """A kept box as `immure ps` lists it.

    `created_s` is in seconds since 1970, and `processes` None where a kernel of the box's own has them. `command` is
    the newest of those that nobody waits for.
    """

    name: str
    id: str
    level: str
    state: State
    created_s: float
    processes: int | None
    command: KeptCommand | None


def list_boxes() -> list[dict[str, Any]]:
    """The rows of `immure ps`, as the keeper says them; none where there is no keeper. Raises ImmureError."""
    asked = begin("list", {})
    if asked is None:
        return []
    try:
        answer = asked.answer()
    finally:
        asked.close()
    # It may have left meanwhile, with nothing to hold.
    return answer[0] if answer is not None else []


def infos() -> tuple[KeptInfo, ...]:
    """The same as values."""
    return msgspec.convert(list_boxes(), tuple[KeptInfo, ...])


def stats_of(answer: Any) -> BoxStats:
    """What `stats` answers."""
    return msgspec.convert(answer, BoxStats)


def logs_of(asked: Asked) -> Iterator[Logs]:
    """What `follow` answers, part by part. Raises ImmureError."""
    while (answer := asked.answer()) is not None:
        yield msgspec.convert(answer[0], Logs, builtin_types=(bytes,))


def last_of(parts: Iterator[Logs], command: int | None, tail: int | None) -> Logs:
    """All parts together, and of them what `Log.read` would give."""
    answers = [*parts]
    entries = [one for part in answers for one in part.entries]
    dropped = sum(part.dropped_bytes for part in answers)
    found = [one for one in entries if command is None or one.command == command]
    return Logs(tuple(found if tail is None else found[max(0, len(found) - tail) :]), dropped)
