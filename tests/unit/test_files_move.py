"""Moving what a box sends into a file, where splice(2) can and where it can't."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immure.engine import transfer


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["spliced", "copied"])
def test_everything_is_moved(flags: int, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    target = os.open(tmp_path / "target", os.O_WRONLY | os.O_CREAT | flags)
    if flags:
        # The control: the kernel does not splice to the end of a file.
        os.write(writer, b"x")
        with pytest.raises(OSError, match="Invalid argument"):
            os.splice(reader, target, 1)
        assert os.read(reader, 1) == b"x"
    os.write(writer, b"content")
    os.close(writer)
    counts = []
    while count := transfer.move(reader, target):
        counts.append(count)
    assert sum(counts) == 7
    assert (tmp_path / "target").read_bytes() == b"content"
    os.close(reader)
    os.close(target)
