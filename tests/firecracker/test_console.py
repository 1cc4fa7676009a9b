"""What is kept of a console is its last, however much there is and however it comes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from immure.runtimes.firecracker.console import KEPT_BYTES, Console

from .vmms import SOON_S


class Line:
    """A console, and the end that a guest writes to."""

    def __init__(self) -> None:
        receives, self.sends = os.pipe2(os.O_CLOEXEC)
        self.console = Console(receives)

    def says(self, content: bytes) -> None:
        while content:
            content = content[os.write(self.sends, content) :]

    def ends(self) -> None:
        if self.sends >= 0:
            os.close(self.sends)
            self.sends = -1
        self.console.close()


@pytest.fixture
def line() -> Iterator[Line]:
    one = Line()
    yield one
    one.ends()


def test_positions(line: Line) -> None:
    line.says(b"0123456789")
    assert line.console.wait_for(b"9", SOON_S)
    assert line.console.read() == (0, b"0123456789", 10)
    assert line.console.read(4) == (4, b"456789", 10)
    assert line.console.read(4, most=2) == (4, b"45", 10)
    assert line.console.read(10) == (10, b"", 10)
    assert line.console.read(1 << 60) == (10, b"", 10)


def test_a_line_in_pieces(line: Line) -> None:
    line.says(b"whole\nbegun")
    assert line.console.wait_for(b"begun", SOON_S)
    assert not line.console.wait_line(6, 0.05)
    line.says(b" and ended\n")
    assert line.console.wait_line(6, SOON_S)


def test_a_flood(line: Line) -> None:
    block = bytes(range(256)) * 256
    for _ in range(160):
        line.says(block)
    line.ends()
    begin, content, total = line.console.read()
    assert total == 160 * len(block)
    assert len(content) == KEPT_BYTES
    assert KEPT_BYTES <= total - begin < KEPT_BYTES + 65_536
    assert line.console.read(begin)[:2] == (begin, content)
    # A position is what it was: each byte is still where it has been said.
    assert content[: 256 - begin % 256] == bytes(range(begin % 256, 256))


def test_a_byte_at_a_time(line: Line) -> None:
    for number in range(2000):
        line.says(bytes([number % 256]))
    line.ends()
    assert line.console.read(1999) == (1999, bytes([1999 % 256]), 2000)


def test_waiting_ends_with_it(line: Line) -> None:
    line.says(b"one\r\n\r\n  two \xff\r\n \r\n")
    line.ends()
    assert not line.console.wait_for(b"three", SOON_S)
    assert not line.console.wait_line(10_000, SOON_S)
    assert line.console.wait_line(10, SOON_S)
    assert line.console.last_words() == "two \ufffd"
