"""Events of a trace as the command line prints them: a line for a person, or JSON. What a box says is escaped."""

from __future__ import annotations

import errno
import json
import signal
import time
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from immure.cli.execute import printable
from immure.runtimes.gvisor.trace.addresses import address_text
from immure.runtimes.gvisor.trace.events import DROPPED, TraceEvent
from immure.runtimes.gvisor.trace.intake import TraceCounts
from immure.runtimes.gvisor.trace.wire import Value

#: Of text and bytes, in a line. JSON has all of it.
_SHOWN = 200
_SHOWN_BYTES = 32
_HEX = {"flags", "stack", "tls", "addr", "sigset", "mask", *(f"arg{place}" for place in range(1, 7))}
_OCTAL = {"mode", "binary_mode", "mapped_mode"}
_OUR_POINTS = "trace/"


def is_shown(event: TraceEvent, *, denied: bool) -> bool:
    """Whether it is to be printed: with `denied` calls that failed alone, and what is to be known of the stream."""
    return not denied or event.denied is not None or event.point.startswith(_OUR_POINTS)


def json_line(event: TraceEvent) -> str:
    """The whole event as one line of JSON, in ASCII. Bytes are in Base64; text that is no UTF-8 has lone surrogates."""
    return json.dumps(msgspec.to_builtins(event), separators=(",", ":"))


def text_line(event: TraceEvent) -> str:
    """The event in one line: when, who, which point, its fields as far as they say something, and its result."""
    parts = [_when(event.time_ns), _who(event), event.point, *_fields(event)]
    if event.denied is not None:
        parts.append(f"= {errno.errorcode.get(event.denied, f'errno {event.denied}')}")
    elif event.result is not None:
        parts.append(f"= {event.result}")
    # A guest has its part in all of it.
    return printable(" ".join(part for part in parts if part))


def summary(counts: TraceCounts) -> str:
    """What is to be said at the end: how many events there were, and what is missing."""
    parts = [f"{counts.events} events"]
    parts += [
        f"{number} {what}"
        for number, what in (
            (counts.dropped, "dropped"),
            (counts.malformed, "malformed"),
            (counts.unknown, "of kinds unknown to this version"),
            (counts.refused, "connections refused"),
        )
        if number
    ]
    return ", ".join(parts)


def _when(time_ns: int) -> str:
    seconds, nanoseconds = divmod(time_ns, 10**9)
    if not 0 < seconds < 1 << 40:
        return ""
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{nanoseconds // 1000:06}"


def _who(event: TraceEvent) -> str:
    process = event.process
    ids = str(process.group_id) if process.group_id == process.thread_id else f"{process.group_id}/{process.thread_id}"
    return " ".join(part for part in (ids if process.thread_id else "", _cut(process.name)) if part)


def _fields(event: TraceEvent) -> list[str]:
    if event.point == DROPPED:
        return [f"{event.fields['count']} events before this one"]
    parts = [f"{name}={_shown(name, value)}" for name, value in event.fields.items() if _says_something(name, value)]
    if event.process.cwd:
        parts.append(f"cwd={_shown('cwd', event.process.cwd)}")
    return parts


def _says_something(name: str, value: Value) -> bool:
    # Numbers always do: 0 is standard input. That of the call is in the point's name.
    return name != "sysno" and value is not False and value not in ("", b"", None, [])


def _shown(name: str, value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _number(name, value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bytes):
        return _address(value) if name == "address" else _bytes(value)
    if isinstance(value, list):
        return f"[{_cut(' '.join(_shown(name, one) for one in value[:_SHOWN]))}]"
    if value is None:
        return "none"
    inner = cast("Mapping[str, Any]", value)
    return "{" + " ".join(f"{key}={_shown(key, one)}" for key, one in inner.items() if _says_something(key, one)) + "}"


def _number(name: str, value: int) -> str:
    if name in _HEX:
        return hex(value)
    if name in _OCTAL:
        return f"{value:#o}"
    if name == "exit_status":
        return _ending(value)
    return str(value)


def _ending(status: int) -> str:
    """What wait(2) gives for the end of a process."""
    number = status & 0x7F
    if not number:
        return str(status >> 8 & 0xFF)
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _quoted(text: str) -> str:
    cut = _cut(text)
    return '"' + cut.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _bytes(value: bytes) -> str:
    return value[:_SHOWN_BYTES].hex() + ("…" if len(value) > _SHOWN_BYTES else "")


def _address(value: bytes) -> str:
    text = address_text(value)
    if text.startswith("unix:"):
        return "unix:" + _quoted(text.removeprefix("unix:"))
    return text if ":" in text else _bytes(value)
