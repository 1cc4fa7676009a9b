"""Where in its text a rule of a profile stands."""

from __future__ import annotations

import json
import re

_SPACE = re.compile(r"[\s,:]*")
_decode = json.JSONDecoder().raw_decode


def rule_lines(text: str) -> list[int]:
    """The line of the text, from 1 on, in which each entry of `syscalls` begins. `text` is a profile in JSON."""
    at = text.index("{") + 1
    while True:
        at = _skip(text, at)
        if at >= len(text) or text[at] == "}":
            return []
        key, at = _decode(text, at)
        at = _skip(text, at)
        if key == "syscalls" and text[at] == "[":
            return _entries(text, at + 1)
        _, at = _decode(text, at)


def _entries(text: str, at: int) -> list[int]:
    lines: list[int] = []
    while True:
        at = _skip(text, at)
        if text[at] == "]":
            return lines
        lines.append(text.count("\n", 0, at) + 1)
        _, at = _decode(text, at)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at
