"""Recorded calls as text, and what a change of profile would have done to them.

A trace is JSON, a line a call, after a line that says what it is:

{"schema": "immure.trace/v1", "arch": "x86_64"}
{"abi": "x86_64", "call": "socket", "number": 41, "args": [2, 524289, 0, 0, 0, 0], "answer": "ALLOW"}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import TypeVar

import msgspec

from immure.errors import ProfileError

from .abi import ABIS, FAMILIES
from .evaluate import Call, Decision, Reference
from .profile import MAX_U64, Profile
from .resolve import Kernel
from .syscalls import name_of

TRACE_SCHEMA = "immure.trace/v1"
_MAX_NUMBER = 2**32 - 1
_T = TypeVar("_T")


class TraceHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line."""

    schema: str
    arch: str


class TraceCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call. `call` and `answer` are for readers; `number` counts."""

    abi: str
    call: str | None
    number: int
    args: tuple[int, ...]
    answer: str

    def __post_init__(self) -> None:
        if self.abi not in ABIS:
            raise ValueError(f"abi is {self.abi!r}; it is one of {', '.join(ABIS)}")
        if not 0 <= self.number <= _MAX_NUMBER:
            raise ValueError(f"number is {self.number}; a call's has 32 bits")
        if len(self.args) > 6 or not all(0 <= one <= MAX_U64 for one in self.args):
            raise ValueError("args are up to six numbers of 64 bits without a sign")


class Changed(msgspec.Struct):
    """Calls that two profiles answer differently, all in the same way: the first of them, and how many there are."""

    call: Call
    name: str
    old: Decision
    new: Decision
    count: int


def read_trace(lines: Iterable[bytes], *, name: str) -> tuple[str, Iterator[Call]]:
    """The architecture of a trace, and its calls. Raises ProfileError, while iterating too, with the line's number."""
    rows = iter(lines)
    first = _decode(next(rows, b""), TraceHeader, name, 1)
    if first.schema != TRACE_SCHEMA:
        raise ProfileError("not a trace", path=f"{name}:1", need=TRACE_SCHEMA, have=first.schema)
    if first.arch not in FAMILIES:
        raise ProfileError(
            f"no such architecture: {first.arch}", path=f"{name}:1", need=f"one of {', '.join(FAMILIES)}"
        )
    return first.arch, _calls(rows, name)


def _calls(rows: Iterator[bytes], name: str) -> Iterator[Call]:
    for number, row in enumerate(rows, 2):
        if row.strip():
            one = _decode(row, TraceCall, name, number)
            yield Call(one.abi, one.number, one.args)


def _decode(row: bytes, kind: type[_T], name: str, line: int) -> _T:
    try:
        return msgspec.json.decode(row, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ProfileError(
            f"a line of a trace can't be read: {error}",
            path=f"{name}:{line}",
            need="a file that `immure policy learn --trace` wrote",
        ) from error


def changed_calls(
    old: Profile,
    new: Profile,
    calls: Iterable[Call],
    *,
    arch: str,
    capabilities: Set[str] = frozenset(),
    kernel: Kernel = (6, 1),
) -> list[Changed]:
    """Which of `calls` get another answer from `new` than from `old`; what two rules say alike is no change."""
    before = Reference(old, arch=arch, capabilities=capabilities, kernel=kernel)
    after = Reference(new, arch=arch, capabilities=capabilities, kernel=kernel)
    found: dict[tuple[object, ...], Changed] = {}
    for call in calls:
        first, second = before.decide(call), after.decide(call)
        if (first.action, first.errno) == (second.action, second.errno):
            continue
        key = (call.arch, call.nr, first.action, first.errno, second.action, second.errno, second.rule)
        one = found.get(key)
        if one is None:
            name = name_of(ABIS[call.arch], call.nr) or str(call.nr)
            one = found[key] = Changed(call, name, first, second, 0)
        one.count += 1
    return sorted(found.values(), key=lambda one: (-one.count, one.name))
