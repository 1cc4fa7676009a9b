"""The frames that both codecs are tested with. `native/src/channel/tests` reads the same files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "frames"


def rows(file: str) -> list[list[str]]:
    """The lines of one file, in the parts that colons divide them into."""
    lines = (FOLDER / file).read_text().splitlines()
    return [line.split(": ") for line in lines if line and not line.startswith("#")]


def to_bytes(words: str) -> bytes:
    """Hexadecimal words; one with a count stands for so many."""
    parts = (word.partition("*") for word in words.split())
    return b"".join(bytes.fromhex(word) * int(count or 1) for word, _, count in parts)


VALID = {name: to_bytes(words) for name, words in rows("valid.txt")}
#: What is read, and what means the same.
LOOSE = {name: tuple(map(to_bytes, words.split(" "))) for name, words in rows("loose.txt")}
#: By name: the fault, and the bytes.
INVALID = {name: (fault, to_bytes(words)) for fault, name, words in rows("invalid.txt")}
