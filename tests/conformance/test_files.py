"""Every verb of `files`, over each face, as root and as a plain user; and what a hostile box may put in their way."""

from __future__ import annotations

import io
import os
import textwrap
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immure import ExecFailed, FileError, Sandbox, SpecError

from .faces import (
    FACES,
    OLD_SENTRY,
    PATIENCE_S,
    BlockingBox,
    BlockingFiles,
    blocking,
    has_sentry,
    is_interpreted,
    is_machine,
)

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(2 * PATIENCE_S)]


@pytest.fixture(params=FACES, scope="module")
def box(request: pytest.FixtureRequest) -> Iterator[BlockingBox]:
    with blocking(request.param, timeout_s=1.5 * PATIENCE_S) as made:
        yield made


@pytest.fixture
def files(box: BlockingBox) -> BlockingFiles:
    box.exec(["/bin/sh", "-c", "rm -rf /tmp/* /tmp/.[!.]*"])
    return box.files


def refused(errno: int, call: Callable[..., Any], *args: Any, **keywords: Any) -> FileError:
    with pytest.raises(FileError) as caught:
        call(*args, **keywords)
    assert caught.value.errno == errno, caught.value
    return caught.value


def python(program: str) -> list[str]:
    return ["/usr/bin/python3", "-ISc", program]


class TestContent:
    def test_what_is_written_is_read(self, files: BlockingFiles) -> None:
        for data in (b"", b"x", bytes(range(256)) * 1000, b"\n" * 5_000_000):
            files.write("/tmp/a", data)
            assert files.read("/tmp/a") == data
        files.write("/tmp/text", "grüße")
        assert files.read("text").text() == "grüße"
        assert files.read("text", offset=2, length=3) == "grüße".encode()[2:5]
        assert files.read("text", offset=100) == b""
        assert files.read("text", length=0) == b""

    def test_ways_to_write(self, files: BlockingFiles) -> None:
        files.write("a", b"one")
        files.write("a", b" two", append=True)
        files.write("b", b"new", append=True)
        assert (files.read("a"), files.read("b")) == (b"one two", b"new")
        refused(17, files.write, "a", b"x", new=True)
        files.write("c", b"x", new=True)
        refused(2, files.write, "no/such/folder", b"x")
        files.write("no/such/folder", b"x", parents=True)
        assert files.read("a") == b"one two"

    def test_modes(self, files: BlockingFiles, box: BlockingBox) -> None:
        files.write("a", b"x", mode=0o750)
        assert files.stat("a").mode == 0o750
        # What is there keeps its own.
        files.write("a", b"y", mode=0o600)
        assert (files.stat("a").mode, files.read("a")) == (0o750, b"y")
        files.write("setuid", b"x", mode=0o4755)
        assert files.stat("setuid").mode == 0o755
        assert files.stat("a").uid == int(box.exec(["id", "-u"]).stdout)

    def test_a_reader_never_sees_half_a_file(self, files: BlockingFiles, box: BlockingBox) -> None:
        files.write("a", b"1" * 1_000_000)
        count = 40 if is_machine(box.face) else 400
        program = f"for _ in range({count}): d = open('/tmp/a').read(); assert (len(d), len(set(d))) == (1000000, 1)"
        reader = box.start(python(program))
        for number in range(2, 10):
            files.write("a", str(number).encode() * 1_000_000)
        assert reader.wait().exit.code == 0
        assert [one.name for one in files.list("/tmp")] == ["a"]

    def test_from_and_to_files_of_the_host(self, files: BlockingFiles, tmp_path: Path) -> None:
        content = os.urandom(3_000_000)
        (tmp_path / "source").write_bytes(content)
        files.upload(tmp_path / "source", "a")
        files.download("a", tmp_path / "target")
        assert (tmp_path / "target").read_bytes() == content
        with (tmp_path / "source").open("rb") as file:
            file.read(1_000_000)
            files.write("b", file)
        assert files.read("b") == content[1_000_000:]
        files.write("c", io.BytesIO(content))
        assert files.read("c") == content
        with pytest.raises(SpecError):
            files.download("a", tmp_path / "target")
        with pytest.raises(FileNotFoundError):
            files.upload(tmp_path / "nothing", "a")

    # A minute through an emulated port.
    @pytest.mark.timeout(6 * PATIENCE_S)
    def test_more_than_two_gib_in_little_memory(self, files: BlockingFiles, box: BlockingBox, tmp_path: Path) -> None:
        """Where KVM interprets the guest's kernel they would take hours to go in, and are made within."""
        size = (2 << 30) + 5
        source = tmp_path / "large"
        with source.open("wb") as file:
            file.truncate(size - 3)
            file.seek(0, 2)
            file.write(b"end")
        # They are on a machine's own disk.
        memory = {"memory_mib": 256} if is_machine(box.face) else {}
        with blocking(box.face, disk_mib=2400, timeout_s=5.5 * PATIENCE_S, **memory) as large:
            tracemalloc.start()
            try:
                if is_interpreted(box.face):
                    made = f"truncate -s {size - 3} /tmp/large && printf end >> /tmp/large"
                    assert large.exec(["/bin/sh", "-c", made]).ok
                else:
                    large.files.upload(source, "/tmp/large")
                assert large.files.stat("/tmp/large").size_bytes == size
                assert large.files.read("/tmp/large", offset=size - 3) == b"end"
                assert tracemalloc.get_traced_memory()[1] < 8 << 20
            finally:
                tracemalloc.stop()
            refused(27, large.files.read, "/tmp/large")
            with pytest.raises(FileError, match="longer than wanted"):
                large.files.download("/tmp/large", tmp_path / "part", max_bytes=1 << 20)
            assert sorted(one.name for one in tmp_path.iterdir()) == ["large"]


class TestFolders:
    def test_listing_and_what_is_known(self, files: BlockingFiles, box: BlockingBox) -> None:
        box.exec(
            [
                "/bin/sh",
                "-c",
                "cd /tmp; echo 12345 > file; mkdir folder; ln -s file link; mkfifo fifo; touch -d @1.5 old",
            ]
        )
        found = {one.name: one for one in files.list()}
        assert {name: one.kind for name, one in found.items()} == {
            "file": "file", "folder": "folder", "link": "link", "fifo": "other", "old": "file",
        }  # fmt: skip
        assert (found["file"].size_bytes, found["link"].target) == (6, "file")
        assert found["old"].modified_ns == 1_500_000_000
        assert files.stat("link").kind == "file"
        assert files.stat("link", follow=False).kind == "link"
        assert [files.exists(name) for name in ("file", "nothing", "file/below")] == [True, False, False]

    def test_names_that_are_no_text(self, files: BlockingFiles, box: BlockingBox) -> None:
        program = r"""
import os
os.chdir("/tmp")
for name in (b"a\nb", b"\xff\x1b[2J", b" "): open(name, "w").close()
os.symlink(b"\xfe", b"link")
"""
        assert box.exec(python(program)).ok
        names = [os.fsencode(one.name) for one in files.list()]
        assert sorted(names) == sorted([b"a\nb", b"\xff\x1b[2J", b" ", b"link"])
        for name in names[:3]:
            if name != b"link":
                files.remove(os.fsdecode(name))
        assert os.fsencode(files.stat("link", follow=False).target or "") == b"\xfe"

    def test_ten_thousand_entries(self, files: BlockingFiles, box: BlockingBox) -> None:
        box.exec(
            [
                "/usr/bin/python3",
                "-ISc",
                "import os\nos.mkdir('/tmp/many')\nfor i in range(10000): open(f'/tmp/many/{i:0100}', 'w')",
            ]
        )
        assert len(files.list("many")) == 10_000

    def test_making_moving_and_removing(self, files: BlockingFiles) -> None:
        files.mkdir("a", mode=0o700)
        assert files.stat("a").mode == 0o700
        refused(17, files.mkdir, "a")
        files.mkdir("a/b/c", parents=True)
        files.mkdir("a/b/c", parents=True)
        files.write("a/b/f", b"x")
        files.move("a/b/f", "f")
        files.write("g", b"y")
        refused(17, files.move, "f", "g")
        files.move("f", "g", replace=True)
        assert files.read("g") == b"x"
        refused(39, files.remove, "a")
        files.remove("a", recursive=True)
        refused(2, files.remove, "a")
        files.remove("g")
        assert files.list() == []

    def test_the_working_directory_may_be_what_is_to_be_made(self, box: BlockingBox) -> None:
        with blocking(box.face, workdir="/tmp/new") as other:
            with pytest.raises(ExecFailed, match="/tmp/new"):
                other.files.list()
            other.files.mkdir("/tmp/new")
            other.files.write("a", b"x")
            assert other.files.read("/tmp/new/a") == b"x"
            other.files.move("/tmp/new/a", "b")
            assert [one.name for one in other.files.list()] == ["b"]

    def test_removing_follows_no_link(self, files: BlockingFiles, box: BlockingBox) -> None:
        box.exec(["/bin/sh", "-c", "cd /tmp; mkdir keep gone; touch keep/f; ln -s ../keep gone/l; ln -s keep l"])
        files.remove("gone", recursive=True)
        files.remove("l", recursive=True)
        assert [one.name for one in files.list("keep")] == ["f"]

    def test_folders_there_and_back(self, files: BlockingFiles, tmp_path: Path) -> None:
        source = tmp_path / "source"
        (source / "a/b").mkdir(parents=True)
        (source / "a/b/run").write_text("#!/bin/sh")
        (source / "a/b/run").chmod(0o755)
        (source / "a/up").symlink_to("../top")
        (source / "top").write_bytes(b"x" * 100_000)
        (source / ("long" * 50)).write_text("long")
        (source / "empty").mkdir(mode=0o700)
        files.upload(source, "copy")
        assert files.stat("copy/a/b/run").mode == 0o755
        files.download("copy", tmp_path / "back")
        assert tree(tmp_path / "back") == tree(source)
        # Into what is there.
        files.write("copy/more", b"1")
        files.upload(source, "copy")
        assert files.read("copy/more") == b"1"
        assert sorted(one.name for one in tmp_path.iterdir()) == ["back", "source"]

    def test_what_can_not_be_taken_along(self, files: BlockingFiles, box: BlockingBox, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        os.mkfifo(source / "fifo")
        with pytest.raises(SpecError, match="fifo"):
            files.upload(source, "copy")
        box.exec(["/bin/sh", "-c", "mkdir -p /tmp/f; mkfifo /tmp/f/fifo"])
        refused(6, files.download, "f", tmp_path / "back")
        assert sorted(one.name for one in tmp_path.iterdir()) == ["source"]

    def test_limits_of_what_comes(self, files: BlockingFiles, tmp_path: Path) -> None:
        files.write("f/a", bytes(1000), parents=True)
        files.write("f/b", bytes(1000))
        for limits in ({"max_bytes": 1999}, {"max_entries": 1}):
            with pytest.raises(FileError, match="at most"):
                files.download("f", tmp_path / "back", **limits)
        files.download("f", tmp_path / "back", max_bytes=2000, max_entries=2)
        assert sorted(one.name for one in tmp_path.iterdir()) == ["back"]

    def test_changes_as_they_come(self, files: BlockingFiles) -> None:
        files.mkdir("w")
        with files.watching("w", recursive=True) as following:
            files.mkdir("w/sub")
            assert following() == event("w/sub", "created", folder=True)
            files.write("w/sub/f", b"x", append=True)
            changes = [following() for _ in range(3)]
            assert [(one.path, one.change) for one in changes] == [
                ("w/sub/f", "created"), ("w/sub/f", "modified"), ("w/sub/f", "written"),
            ]  # fmt: skip
            files.move("w/sub/f", "w/g")
            assert [following().change for _ in range(2)] == ["moved_from", "moved_to"]
        refused(2, files.watch, "nothing")

    def test_a_folder_that_can_not_be_watched_is_told_of(self, files: BlockingFiles, box: BlockingBox) -> None:
        files.mkdir("w/open", parents=True)
        with files.watching("w", recursive=True) as following:
            files.write("w/open/f", b"x", append=True)
            assert following() == event("w/open/f", "created", folder=False)
        files.mkdir("w/closed", mode=0o300)
        with files.watching("w", recursive=True) as following:
            if has_sentry(box.face):
                # It lets anybody watch.
                files.write("w/closed/f", b"x", append=True)
                assert following() == event("w/closed/f", "created", folder=False)
                files.remove("w/closed/f")
            else:
                assert following() == event("w/closed", "overflow", folder=True)

    def test_what_comes_with_a_folder_is_not_missed(self, files: BlockingFiles, box: BlockingBox) -> None:
        files.mkdir("w")
        with files.watching("w", recursive=True) as following:
            for number in range(20):
                box.exec(["/bin/sh", "-c", f"mkdir -p /tmp/w/{number}/a/b; : > /tmp/w/{number}/a/b/f"])
                seen: set[str] = set()
                while f"w/{number}/a/b/f" not in seen:
                    seen.add(following().path)
                assert {f"w/{number}", f"w/{number}/a", f"w/{number}/a/b"} <= seen


def event(path: str, change: Any, *, folder: bool) -> object:
    from immure.engine.file_models import FileEvent

    return FileEvent(path, change, folder)


def tree(root: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode & 0o777
        content: object = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = content if path.is_symlink() else (mode, content)
    return found


class TestHostile:
    def test_what_is_no_file_is_not_waited_for(self, files: BlockingFiles, box: BlockingBox) -> None:
        script = "mkfifo fifo; ln -s fifo to-fifo; ln -s /proc/self/fd/1 to-fd; ln -s /dev/zero zero; ln -s ring ring"
        box.exec(["/bin/sh", "-c", script], workdir="/tmp")
        for name in ("fifo", "to-fifo", "to-fd", "zero"):
            refused(6, files.read, name)
            refused(6, files.write, name, b"x")
        refused(40, files.read, "ring")
        refused(21, files.read, "/tmp")
        refused(21, files.write, "/tmp", b"x")
        box.exec(["/bin/sh", "-c", "echo real > /tmp/real; ln -s real /tmp/to-real"])
        assert files.read("to-real") == b"real\n"

    def test_the_box_s_walls_are_those_of_its_commands(self, box: BlockingBox, files: BlockingFiles) -> None:
        first = () if box.face == OLD_SENTRY else ("/proc/1/environ",)
        for path in ("/etc/shadow", "/root/x", *first):
            with pytest.raises(FileError):
                files.read(path)
        with pytest.raises(FileError):
            files.write("/usr/bin/planted", b"x")
        with pytest.raises(FileError):
            files.write("/etc/planted", b"x")
        assert files.read("/etc/passwd")

    def test_no_process_of_the_box_can_look_into_an_operation(self, box: BlockingBox, files: BlockingFiles) -> None:
        program = textwrap.dedent("""
            import os, time
            def quickly(path, flags): return os.open(path, flags | os.O_NONBLOCK)
            def look(pid):
                for what in ("mem", "environ", "maps", "fd/0", "fd/1"):
                    try:
                        with open(f"/proc/{pid}/{what}", "rb", opener=quickly) as file:
                            # Of one that is ending there are maps, with nothing in them.
                            if what != "maps" or file.read(10):
                                yield what
                    except (PermissionError, FileNotFoundError, ProcessLookupError):
                        pass
            control = os.fork()
            if control == 0: time.sleep(1000)
            seen, got = 0, []
            while not os.path.exists("/tmp/stop"):
                for pid in os.listdir("/proc"):
                    if pid.isdigit() and int(pid) not in (1, os.getpid(), control):
                        seen += 1
                        got += look(pid)
            print(seen > 0, got, len(list(look(control))))
            os.kill(control, 9)
        """)
        spy = box.start(python(program))
        # A kernel that is interpreted takes ten seconds for each.
        for _ in range(3 if is_interpreted(box.face) else 30):
            files.write("a", bytes(3_000_000))
            files.read("a")
        files.write("stop", b"")
        said = spy.wait().stdout
        if box.face == OLD_SENTRY:
            assert said.startswith(b"True ")
            assert b"'mem'" not in said
        else:
            assert said == b"True [] 5\n"

    def test_a_full_disk_leaves_what_was_there(self, box: BlockingBox, tmp_path: Path) -> None:
        with blocking(box.face, disk_mib=8) as small:
            small.files.write("/tmp/a", b"old")
            error = refused(28, small.files.write, "/tmp/a", bytes(12 << 20))
            assert "disk_mib" in str(error)
            assert small.files.read("/tmp/a") == b"old"
            assert [one.name for one in small.files.list("/tmp")] == ["a"]

    def test_a_profile_that_refuses_what_it_takes(self) -> None:
        with Sandbox(seccomp="strict") as box:
            box.files.write("/tmp/a", b"x", append=True)
            assert box.files.read("/tmp/a") == b"x"
            # It has no rename.
            assert "profile" in str(refused(1, box.files.write, "/tmp/a", b"y"))
            assert [one.name for one in box.files.list("/tmp")] == ["a"]
