"""`immure ps`, `logs`, `kill`, `pause`, `resume` and `stats`: the boxes that are kept."""

from __future__ import annotations

import base64
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from time import time
from typing import Any

import msgspec

from immure.cli.execute import complain, printable
from immure.cli.parser import USAGE
from immure.engine.keeper.answers import list_boxes
from immure.engine.keeper.client import ask, begin
from immure.errors import BoxLost, ImmureError, SpecError


def kept(options: Namespace) -> int:
    """Carries one of them out and gives the exit status. Raises ImmureError."""
    verb: Callable[[Namespace], int] = _VERBS[options.verb]
    return verb(options)


def _ps(options: Namespace) -> int:
    boxes = list_boxes()
    if options.json:
        _print_json("immure.boxes/v1", boxes=boxes)
        return 0
    rows = [("NAME", "ID", "LEVEL", "STATE", "PROCESSES", "AGE", "COMMAND")]
    for box in boxes:
        age = _age(time() - box["created_s"])
        command = _command(box["command"])
        rows.append((box["name"], box["id"], box["level"], box["state"], _count(box["processes"]), age, command))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write(printable("  ".join(cells).rstrip()) + "\n")
    return 0


def _count(number: int | None) -> str:
    """Of a kernel of the box's own nothing is known."""
    return "?" if number is None else str(number)


def _command(newest: dict[str, Any] | None) -> str:
    if newest is None:
        return ""
    words = printable(" ".join(newest["argv"]))
    number = newest["code"] if newest["code"] is not None else newest["signal"]
    how = newest["state"] + (f" {number}" if number is not None else "")
    return f"{words if len(words) <= 40 else words[:39] + '…'} ({how})"


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"


def _kill(options: Namespace) -> int:
    names = [box["name"] for box in list_boxes()] if options.all else options.boxes
    if not names and not options.all:
        raise SpecError("no box is named", path="BOX", need="names of kept boxes, or --all", hint="immure ps")
    status = 0
    for name in names:
        try:
            ask("kill", {"name": name})
        except ImmureError as error:
            status = USAGE
            complain(error)
    return status


def _pause(options: Namespace) -> int:
    ask(options.verb, {"name": options.box})
    return 0


def _stats(options: Namespace) -> int:
    stats, _ = ask("stats", {"name": options.box})
    if options.json:
        _print_json("immure.stats/v1", box=options.box, **stats)
    else:
        for name, value in stats.items():
            sys.stdout.write(f"{name:16}{value}\n")
    return 0


def _logs(options: Namespace) -> int:
    asked = begin("follow", {"name": options.box, "after": 0, "follow": options.follow})
    if asked is None:
        raise BoxLost("no box is kept", need="a box that was made with --keep", hint="immure run --keep …")
    try:
        show = _show_json if options.json else _show_text
        lines = _LastLines(options.tail) if options.tail is not None else None
        for logs in _answers(asked):
            if logs["dropped_bytes"] and not options.json:
                sys.stderr.write(f"immure: {logs['dropped_bytes']} bytes are kept no more\n")
            shown = b"".join(show(one) for one in logs["entries"] if options.command in (None, one["command"]))
            if lines is not None:
                # What is there comes in one answer; what is new comes after it.
                shown, lines = lines.of(shown), None
            _write(shown)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    finally:
        asked.close()
    return 0


def _answers(asked: Any) -> Iterator[dict[str, Any]]:
    while (answer := asked.answer()) is not None:
        yield answer[0]


class _LastLines:
    def __init__(self, count: int) -> None:
        if count < 0:
            raise SpecError("less than nothing", path="--tail", need="0 or more", have=str(count))
        self._count = count

    def of(self, text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        return b"".join(lines[max(0, len(lines) - self._count) :])


def _show_text(entry: dict[str, Any]) -> bytes:
    """What the command wrote: as it is for a file, and without what a terminal would obey for one."""
    if entry["stream"] not in ("stdout", "stderr"):
        return b""
    data: bytes = entry["data"]
    if not sys.stdout.isatty():
        return data
    text = data.decode(errors="backslashreplace")
    return "".join(one if one in "\n\t" else printable(one) for one in text).encode()


def _show_json(entry: dict[str, Any]) -> bytes:
    try:
        written = {"text": entry["data"].decode()}
    except UnicodeDecodeError:
        written = {"base64": base64.b64encode(entry["data"]).decode()}
    fields = {name: entry[name] for name in ("time_s", "command", "stream")}
    return msgspec.json.encode({**fields, **written}) + b"\n"


def _write(data: bytes) -> None:
    sys.stdout.flush()
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _print_json(schema: str, **fields: Any) -> None:
    document = {"schema": schema, **fields, "error": None}
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


_VERBS: dict[str, Callable[[Namespace], int]] = {
    "kill": _kill,
    "logs": _logs,
    "pause": _pause,
    "ps": _ps,
    "resume": _pause,
    "stats": _stats,
}
