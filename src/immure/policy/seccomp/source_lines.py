"""Where in its text a rule of a profile stands."""

from __future__ import annotations

import json
import re
from typing import Any, cast

_SPACE = re.compile(r"[\s,:]*")
_decode = json.JSONDecoder().raw_decode


def rule_lines(text: bytes) -> list[int]:
    """The line, from 1 on, in which each entry of `syscalls` begins. `text` is a profile that can be read."""
    words = text.decode()
    return _lines_of_json(words) if words.lstrip().startswith("{") else _lines_of_yaml(words)


def _lines_of_yaml(text: str) -> list[int]:
    import yaml

    for document in cast("Any", yaml).compose_all(text, Loader=yaml.CSafeLoader):
        profile = _value(document, "spec") or document
        rules = _value(profile, "syscalls")
        if rules is not None:
            return [entry.start_mark.line + 1 for entry in rules.value]
    return []


def _value(mapping: Any, key: str) -> Any:
    return next((value for name, value in mapping.value if name.value == key), None)


def _lines_of_json(text: str) -> list[int]:
    at = text.index("{") + 1
    while True:
        at = _skip(text, at)
        if at >= len(text) or text[at] == "}":
            return []
        key, at = _decode(text, at)
        at = _skip(text, at)
        if key == "syscalls" and text[at] == "[":
            return _entries(text, at + 1)
        if key == "spec":
            # An object of Kubernetes.
            at = text.index("{", at) + 1
            continue
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
