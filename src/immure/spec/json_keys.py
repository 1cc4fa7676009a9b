"""Keys that a JSON document has twice. The decoder takes the last one without a word."""

from __future__ import annotations

import re

import msgspec

from immure.errors import SpecError

# A string, with its colon if it is a key, or what opens, closes or parts. The rest of JSON has no structure.
_TOKEN = re.compile(rb'("(?:[^"\\]|\\.)*+")(\s*:)?|[{}\[\],]')


class _Open:
    """An object or a list that the walk is inside of."""

    def __init__(self, *, is_list: bool) -> None:
        self.is_list = is_list
        self.index = 0
        self.key = ""
        self.seen: dict[str, int] = {}

    @property
    def step(self) -> str:
        return f"[{self.index}]" if self.is_list else f".{self.key}"


def refuse_repeated_keys(text: bytes, source: str = "$") -> None:
    """Raises SpecError with the object's path and the lines of both keys. `text` is valid JSON."""
    opened: list[_Open] = []
    for token in _TOKEN.finditer(text):
        string, colon = token.groups()
        if colon is not None:
            _enter_key(opened, msgspec.json.decode(string, type=str), token.start(), text, source)
        elif string is None:
            mark = token[0]
            if mark in b"{[":
                opened.append(_Open(is_list=mark == b"["))
            elif mark in b"}]":
                opened.pop()
            else:
                opened[-1].index += 1


def _enter_key(opened: list[_Open], key: str, at: int, text: bytes, source: str) -> None:
    inside = opened[-1]
    first = inside.seen.setdefault(key, at)
    if first != at:
        lines = [text.count(b"\n", 0, place) + 1 for place in (first, at)]
        raise SpecError(
            f"the key `{key}` is there twice",
            path=source + "".join(outer.step for outer in opened[:-1]),
            need="each key once",
            have=f"lines {lines[0]} and {lines[1]}",
        )
    inside.key = key
