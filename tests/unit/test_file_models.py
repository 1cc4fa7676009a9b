"""What a hostile box may say of its files: it is read, or it is BoxLost, and nothing else."""

from __future__ import annotations

import os
import random
import struct

import pytest

from immure.engine.file_models import (
    EVENT_HEAD,
    MOST_OF_ENTRY,
    event_length,
    file_error,
    read_entries,
    read_event,
)
from immure.errors import BoxLost


def entry(kind: int, name: bytes, target: bytes = b"", size: int = 5) -> bytes:
    head = struct.pack("<BIIIQqII", kind, 0o644, 1, 2, size, -7, len(name), len(target))
    return head + name + target


def test_entries_are_read() -> None:
    first, second = read_entries(entry(0, b"a\xff") + entry(2, b"l", b"t\n"))
    assert (first.name, first.kind, first.target, first.size_bytes) == (os.fsdecode(b"a\xff"), "file", None, 5)
    assert (first.mode, first.uid, first.gid, first.modified_ns) == (0o644, 1, 2, -7)
    assert (second.kind, second.target) == ("link", "t\n")
    assert list(read_entries(b"")) == []
    assert len(entry(2, b"n" * 255, b"t" * 4096)) == MOST_OF_ENTRY


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        entry(4, b"a"),
        entry(0, b"a")[:-1],
        entry(0, b"a") + b"\0",
        struct.pack("<BIIIQqII", 0, 0, 0, 0, 0, 0, 0xFFFF_FFFF, 0xFFFF_FFFF),
    ],
)
def test_what_is_no_listing(data: bytes) -> None:
    with pytest.raises(BoxLost, match="can't be read"):
        list(read_entries(data))


def test_spoiled_listings_never_do_anything_else() -> None:
    dice = random.Random(8)
    good = b"".join(entry(index % 4, b"name" * index, b"target") for index in range(5))
    read = refused = 0
    for _ in range(3000):
        data = bytearray(good[: dice.randint(0, len(good))])
        for _ in range(dice.randint(0, 4)):
            if data:
                data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            list(read_entries(bytes(data)))
            read += 1
        except BoxLost:
            refused += 1
    assert read > 50
    assert refused > 50


def test_events_are_read_and_bounded() -> None:
    event = read_event(struct.pack("<II", 0x4000_0100, 1), b"a")
    assert event is not None
    assert (event.path, event.change, event.folder) == ("a", "created", True)
    unknown = read_event(struct.pack("<II", 0x8000_0000, 1), b"a")
    assert unknown is not None
    assert unknown.change == "other"
    assert read_event(bytes(EVENT_HEAD), b"") is None
    assert event_length(struct.pack("<II", 1, 8192)) == 8192
    with pytest.raises(BoxLost, match="can't be read"):
        event_length(struct.pack("<II", 1, 8193))


@pytest.mark.parametrize("said", [b"", b"open", b"-1 x", b"12345 x", b"\xc2\xb2 x", b" 2", b"9" * 10_000, b"\0"])
def test_reasons_that_are_none(said: bytes) -> None:
    error = file_error("read", "/a", said)
    assert (error.errno, error.have) == (0, "no reason that can be read")


def test_reasons_are_read() -> None:
    assert file_error("read", "/a", b"2 open\nmore").errno == 2
    assert "without recursive" in str(file_error("watch", "/a", b"28 watch\n"))
    assert "disk_mib" in str(file_error("write", "/a", b"28 write\n"))
