"""Files of a box, under the presets that most boxes have: what has to work."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from immure import FileError, Sandbox, SpecError

pytestmark = pytest.mark.rootless

MIB = 1 << 20


@pytest.fixture(params=["default", "python"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    preset = None if request.param == "default" else request.param
    with Sandbox(preset=preset, workdir="/tmp/work", timeout_s=50) as made:
        made.files.mkdir("/tmp/work")
        yield made


def sh(box: Sandbox, script: str) -> bytes:
    result = box.exec(["/bin/sh", "-c", script])
    assert result.ok, result.stderr
    return bytes(result.stdout)


def refused(errno: int, call: Any, *args: Any, **keywords: Any) -> FileError:
    with pytest.raises(FileError) as caught:
        call(*args, **keywords)
    assert caught.value.errno == errno, caught.value
    return caught.value


class Source(io.RawIOBase):
    """So many bytes, made as they are read; then what `last` does."""

    def __init__(self, size: int, last: Any = None) -> None:
        self.left, self.last = size, last

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:  # type: ignore[override]
        count = min(self.left, size if size >= 0 else self.left)
        self.left -= count
        if not count and self.last is not None:
            self.last()
        return b"x" * count


class Counter(io.RawIOBase):
    """Counts what is written, of which it takes a part at a time, and keeps the last bytes."""

    def __init__(self) -> None:
        self.count, self.tail = 0, b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        part = bytes(data[:100_000])
        self.count += len(part)
        self.tail = (self.tail + part)[-8:]
        return len(part)


class TestContent:
    @pytest.mark.parametrize("name", ["plain", "grüße 漢字 🗝", "a\nb", "\udcff", " ", "-rf", "x" * 255])
    def test_any_name_holds_any_content(self, box: Sandbox, name: str) -> None:
        for data in (b"", b"\0", "grüße".encode(), bytes(range(256)) * 5000):
            box.files.write(name, data)
            assert box.files.read(name) == data
            assert box.files.stat(name).size_bytes == len(data)
        assert [one.name for one in box.files.list()] == [name]
        box.files.remove(name)
        assert box.files.list() == []

    def test_a_hundred_mib_there_and_back(self, box: Sandbox, tmp_path: Path) -> None:
        content = os.urandom(MIB) * 100
        (tmp_path / "in").write_bytes(content)
        box.files.upload(tmp_path / "in", "a")
        box.files.download("a", tmp_path / "out")
        assert sh(box, "sha256sum < a").split()[0].decode() == hashlib.sha256(content).hexdigest()
        assert (tmp_path / "out").read_bytes() == content

    def test_a_stream_of_a_hundred_mib_in_little_memory(self, box: Sandbox) -> None:
        counter = Counter()
        tracemalloc.start()
        try:
            box.files.write("a", cast(BinaryIO, Source(100 * MIB + 3)))
            assert box.files.read_into("a", cast(BinaryIO, counter)) == counter.count == 100 * MIB + 3
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()

    def test_past_two_gib(self, box: Sandbox) -> None:
        size = (2 << 30) + 1000
        sh(box, f"truncate -s {size} a")
        box.files.write("a", cast(BinaryIO, io.BytesIO(b"the end.")), append=True)
        assert box.files.read("a", offset=size, length=100) == b"the end."
        counter = Counter()
        tracemalloc.start()
        try:
            assert box.files.read_into("a", cast(BinaryIO, counter)) == size + 8
            assert tracemalloc.get_traced_memory()[1] < 8 * MIB
        finally:
            tracemalloc.stop()
        assert (counter.count, counter.tail) == (size + 8, b"the end.")

    @pytest.mark.slow
    @pytest.mark.timeout(120)
    def test_a_folder_past_two_gib_there_and_back(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a stream: nobody holds it, in memory or in a temporary file."""
        monkeypatch.setattr("tempfile.tempdir", "/no/such/folder")
        source, target, size = tmp_path / "source", tmp_path / "target", (2 << 30) + 5
        source.mkdir()
        (source / "after").write_bytes(b"after")
        with (source / "a large one").open("wb") as file:
            file.truncate(size - 3)
            file.seek(0, os.SEEK_END)
            file.write(b"end")
        with Sandbox(disk_mib=3000, timeout_s=100) as box:
            tracemalloc.start()
            try:
                box.files.upload(source, "/tmp/copy")
                box.files.download("/tmp/copy", target, max_bytes=3 << 30)
                assert tracemalloc.get_traced_memory()[1] < 8 * MIB
                # The control: a hundredth of it would be seen.
                assert len(bytes(20 * MIB)) and tracemalloc.get_traced_memory()[1] > 8 * MIB
            finally:
                tracemalloc.stop()
            assert box.files.stat("/tmp/copy/a large one").size_bytes == size
            with pytest.raises(FileError, match="at most"):
                box.files.download("/tmp/copy", tmp_path / "more", max_bytes=2 << 30)
        with (target / "a large one").open("rb") as file:
            assert file.seek(0, os.SEEK_END) == size
            file.seek(-4, os.SEEK_END)
            assert file.read() == b"\0end"
        assert (target / "after").read_bytes() == b"after"
        assert sorted(one.name for one in tmp_path.iterdir()) == ["source", "target"]
        # The control: there is no place for temporary files.
        with pytest.raises(FileNotFoundError):
            tempfile.mkstemp()

    def test_parts_of_a_file_into_an_open_one(self, box: Sandbox, tmp_path: Path) -> None:
        box.files.write("a", b"0123456789")
        with (tmp_path / "out").open("wb") as file:
            assert box.files.read_into("a", file, offset=4) == 6
            assert box.files.read_into("a", file, max_bytes=10) == 10
            assert refused(27, box.files.read_into, "a", file, max_bytes=9).path == "a"
            refused(2, box.files.read_into, "nothing", file)
        with pytest.raises(SpecError):
            box.files.read_into("a", io.BytesIO(), offset=-1)
        assert (tmp_path / "out").read_bytes().startswith(b"4567890123456789")

    def test_a_file_of_the_host_by_its_path(self, box: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"content")
        box.files.write("a", tmp_path / "a")
        assert box.files.read("a") == b"content"
        with pytest.raises(FileNotFoundError):
            box.files.write("a", tmp_path / "nothing")
        with pytest.raises(SpecError, match="Path"):
            box.files.write("a", 5)  # type: ignore[arg-type]
        assert box.files.read("a") == b"content"

    def test_what_is_decompressed_is_written_so(self, box: Sandbox, tmp_path: Path) -> None:
        with gzip.open(tmp_path / "a.gz", "wb") as file:
            file.write(b"plain")
        with gzip.open(tmp_path / "a.gz") as file:
            box.files.write("a", cast(BinaryIO, file))
        with gzip.open(tmp_path / "a.gz") as file:
            box.files.write("b", io.BufferedReader(cast(Any, file)))
        box.files.write("c", tmp_path / "a.gz")
        assert box.files.read("a") == box.files.read("b") == b"plain"
        assert box.files.read("c") == (tmp_path / "a.gz").read_bytes()

    def test_a_source_that_does_not_wait(self, box: Sandbox) -> None:
        """It has nothing to give now, which is not the end of it."""
        box.files.write("a", b"whole")
        reader, writer = os.pipe2(os.O_NONBLOCK)
        with os.fdopen(reader, "rb", buffering=0) as source:
            os.write(writer, b"half")
            with pytest.raises(BlockingIOError):
                box.files.write("a", source)
            assert box.files.read("a") == b"whole"
            os.write(writer, b"all")
            os.close(writer)
            box.files.write("a", source)
        assert box.files.read("a") == b"all"


class TestModes:
    def test_they_are_those_that_were_asked_for(self, box: Sandbox) -> None:
        """Whatever the umask is."""
        for mode in (0o666, 0o600, 0o444, 0o777):
            box.files.write(f"w{mode}", b"x", mode=mode)
            box.files.write(f"n{mode}", b"x", mode=mode, new=True)
            box.files.write(f"a{mode}", b"x", mode=mode, append=True)
            box.files.mkdir(f"d{mode}", mode=mode)
            assert {one.mode for one in box.files.list() if one.name.endswith(str(mode))} == {mode}
        assert sh(box, "umask").strip() == b"0022"

    def test_folders_above_can_be_used(self, box: Sandbox) -> None:
        box.files.mkdir("a/b/c", mode=0o500, parents=True)
        assert [box.files.stat(one).mode for one in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o500]
        # One that is there keeps its own.
        box.files.mkdir("a/b/c", mode=0o777, parents=True)
        assert box.files.stat("a/b/c").mode == 0o500
        box.files.write("f", b"")
        refused(20, box.files.mkdir, "f", parents=True)

    def test_a_single_file_s_comes_along(self, box: Sandbox, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("#!/bin/sh\necho it runs\n")
        (tmp_path / "run").chmod(0o750)
        box.files.upload(tmp_path / "run", "run")
        assert sh(box, "./run") == b"it runs\n"
        box.files.download("run", tmp_path / "back")
        assert (tmp_path / "back").stat().st_mode & 0o7777 == 0o750


class TestFolders:
    def test_ten_thousand_entries_and_no_more_than_wanted(self, box: Sandbox) -> None:
        sh(box, "mkdir m; cd m; seq 10000 | xargs touch")
        assert {one.name for one in box.files.list("m", max_entries=10_000)} == {str(n) for n in range(1, 10_001)}
        assert "max_entries" in str(refused(27, box.files.list, "m", max_entries=9_999))

    def test_what_can_not_be_seen_is_not_left_out(self, box: Sandbox, tmp_path: Path) -> None:
        sh(box, "mkdir -p d/r; echo x > d/r/f; chmod 444 d/r")
        refused(13, box.files.list, "d/r")
        refused(13, box.files.download, "d", tmp_path / "d")
        assert list(tmp_path.iterdir()) == []
        sh(box, "chmod 755 d/r")
        assert [one.name for one in box.files.list("d/r")] == ["f"]
        box.files.download("d", tmp_path / "d")
        assert (tmp_path / "d/r/f").read_text() == "x\n"

    def test_no_name_is_not_the_working_directory(self, box: Sandbox) -> None:
        box.files.write("f", b"x")
        assert box.files.exists(".")
        assert not box.files.exists("")
        for call in (box.files.remove, box.files.list, box.files.stat, box.files.read):
            refused(2, call, "", **({"recursive": True} if call == box.files.remove else {}))
        assert box.files.read("f") == b"x"

    def test_links_that_lead_nowhere_yet(self, box: Sandbox) -> None:
        sh(box, "mkdir d; ln -s d/one l; ln -s two d/one; ln -s d/three m; ln -s ring ring")
        box.files.write("l", b"1")
        box.files.write("m", b"2", append=True)
        assert (box.files.read("d/two"), box.files.read("d/three")) == (b"1", b"2")
        assert box.files.stat("l", follow=False).kind == box.files.stat("d/one", follow=False).kind == "link"
        refused(40, box.files.write, "ring", b"x")
        assert box.files.stat("ring", follow=False).kind == "link"

    def test_only_files_and_folders_go_in(self, box: Sandbox, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(SpecError, match="fifo"):
            box.files.upload(tmp_path / "fifo", "a")
        assert box.files.list() == []


class TestWatching:
    def test_what_was_missed_is_told(self, box: Sandbox) -> None:
        with box.files.watch(".") as watch:
            sh(box, "seq 10 | xargs touch; touch last")
            changes = []
            for event in watch:
                changes.append(event.change)
                if Path(event.path).name == "last":
                    break
            assert "overflow" not in changes
            # More than the kernel keeps, with nobody who listens.
            script = "import os\nfor _ in range(60000): os.close(os.open('f', os.O_CREAT)); os.unlink('f')"
            assert box.exec(["/usr/bin/python3", "-ISc", script]).ok
            assert any(event.change == "overflow" for event in watch)

    def test_more_folders_than_are_watched(self, box: Sandbox) -> None:
        sh(box, "mkdir m; cd m; seq 8200 | xargs mkdir")
        error = refused(28, box.files.watch, "m", recursive=True)
        assert "without recursive" in str(error)
        box.files.watch("m").close()
