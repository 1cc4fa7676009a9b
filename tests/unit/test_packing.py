"""Folders of the host on their way into a box: as they are, in little memory, and nothing that is beside them."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import pytest

from immure.engine import packing
from immure.engine.packing import pack_folder
from immure.errors import SpecError


def packed(source: Path) -> dict[str, tarfile.TarInfo]:
    buffer = io.BytesIO()
    pack_folder(source, buffer)
    with tarfile.open(fileobj=io.BytesIO(buffer.getvalue())) as archive:
        return {one.name: one for one in archive.getmembers()}


class Nowhere(io.RawIOBase):
    """Takes a part at a time, as a pipe may, and keeps nothing."""

    count = 0

    def write(self, data: Any) -> int:
        part = len(data[:50_000])
        self.count += part
        return part


def nowhere() -> IO[bytes]:
    return cast("IO[bytes]", Nowhere())


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_what_is_there_comes_along(tmp_path: Path) -> None:
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "d/run").write_bytes(b"x" * 1000)
    (tmp_path / "d/run").chmod(0o4755)
    (tmp_path / "d/l").symlink_to("../outside")
    (tmp_path / ("long" * 60)).write_bytes(b"")
    os.utime(tmp_path / "d/run", (5, 5))
    found = packed(tmp_path)
    assert [*found] == ["d", "d/e", "d/l", "d/run", "long" * 60]
    run = found["d/run"]
    assert (run.size, run.mode, run.mtime, run.uid, run.uname) == (1000, 0o755, 5, 0, "")
    assert (found["d/l"].issym(), found["d/l"].linkname) == (True, "../outside")


def test_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\n")
    (tmp_path / name).write_bytes(b"x")
    assert [*packed(tmp_path)] == [name]


def test_a_file_of_several_names_is_sent_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    found = packed(tmp_path)
    assert (found["b"].islnk(), found["b"].linkname, found["b"].size) == (True, "a", 0)


def test_what_is_neither_file_folder_nor_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SpecError, match="fifo"):
        packed(tmp_path)


def test_a_file_that_is_swapped_for_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a box that has the folder mounted, between the look and the opening."""
    source, secret = tmp_path / "source", tmp_path / "secret"
    source.mkdir()
    secret.mkdir()
    (secret / "key").write_bytes(b"secret")
    look = os.stat

    def swapping(name: str, **keywords: Any) -> os.stat_result:
        found = look(name, **keywords)
        (source / name).rename(tmp_path / f"was-{name}")
        (source / name).symlink_to(secret / "key" if name == "file" else secret)
        return found

    for name, make in (("file", Path.touch), ("folder", Path.mkdir)):
        make(source / name)
        buffer = io.BytesIO()
        with monkeypatch.context() as patched:
            patched.setattr(packing.os, "stat", swapping)
            with pytest.raises(SpecError, match="stays what it is"):
                pack_folder(source, buffer)
        assert b"secret" not in buffer.getvalue()
        # The control: whoever follows it gets there.
        assert (source / name).resolve().is_relative_to(secret)
        (source / name).unlink()


def test_a_file_that_becomes_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(1000))
    look = os.fstat

    def cutting(file: int) -> os.stat_result:
        found = look(file)
        os.truncate(tmp_path / "a", 10)
        return found

    monkeypatch.setattr(packing.os, "fstat", cutting)
    with pytest.raises(SpecError, match="shorter"):
        pack_folder(tmp_path, nowhere())


def test_folders_that_go_deeper_than_what_comes_out_of_a_box(tmp_path: Path) -> None:
    (tmp_path / "a" / "/".join(["x"] * 256)).mkdir(parents=True)
    assert len(packed(tmp_path / "a")) == 256
    (tmp_path / "a" / "/".join(["x"] * 257)).mkdir()
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(SpecError, match="256 folders"):
        packed(tmp_path / "a")
    assert len([*Path("/proc/self/fd").iterdir()]) == before


def test_a_file_past_two_gib_in_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate((2 << 30) + 5)
    stream = nowhere()
    assert peak(lambda: pack_folder(tmp_path, stream)) < 4 << 20
    assert cast("Nowhere", stream).count == (2 << 30) + 512 + 3 * 512
    # The control: holding a hundredth of it would be seen.
    assert peak(lambda: bytes(20 << 20)) > 4 << 20


def test_many_files_in_little_memory(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number:0100}").touch()
    most = 2 << 20
    assert peak(lambda: pack_folder(tmp_path, nowhere())) < most

    def kept() -> None:
        with tarfile.open(fileobj=nowhere(), mode="w|") as archive:
            archive.add(tmp_path, arcname=".")

    # The control: Python's own packer keeps what it has written.
    assert peak(kept) > most
