"""What a hostile box, or the loss of a caller, may put in the way of an operation on files. Each with its control."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from immure import BoxLost, FileError, Process, Sandbox
from immure.engine.files import Files

from .test_files import Source, refused, sh

pytestmark = pytest.mark.rootless


@pytest.fixture
def box() -> Iterator[Sandbox]:
    with Sandbox(workdir="/tmp/work", timeout_s=40) as made:
        made.files.mkdir("/tmp/work")
        yield made


def background(box: Sandbox, program: str) -> Process:
    """A program that goes on until there is /tmp/stop."""
    running = f"""
import os, time
os.chdir("/tmp/work")
while not os.path.exists("/tmp/stop"):
{textwrap.indent(textwrap.dedent(program).strip(), "    ")}
"""
    return box.start(["/usr/bin/python3", "-ISc", running])


def stop(box: Sandbox, process: Process) -> None:
    sh(box, "touch /tmp/stop")
    assert process.wait().ok


class TestLost:
    """Content whose sender is lost on the way."""

    def test_a_source_that_breaks(self, box: Sandbox) -> None:
        def broken() -> None:
            raise RuntimeError("the source broke")

        box.files.write("a", b"whole")
        for _ in range(150):
            with pytest.raises(RuntimeError):
                box.files.write("a", cast(BinaryIO, Source(5000, broken)))
            with pytest.raises(RuntimeError):
                box.files.write("b", cast(BinaryIO, Source(5000, broken)), new=True)
            assert box.files.read("a") == b"whole"
            assert [one.name for one in box.files.list()] == ["a"]
        box.files.write("a", cast(BinaryIO, Source(5000)))
        assert box.files.read("a") == b"x" * 5000

    def test_a_caller_that_is_killed(self, tmp_path: Path) -> None:
        """In a folder of the host, where half a file would be there to stay."""
        (tmp_path / "mount").mkdir()
        kept = tmp_path / "mount/a"
        program = textwrap.dedent("""
            import os, signal, sys
            from immure import Sandbox
            from integration.test_files import Source
            last = {"killed": lambda: os.kill(os.getpid(), signal.SIGKILL), "whole": None}[sys.argv[2]]
            with Sandbox(mounts=[(sys.argv[1], "/work", "rw")]) as box:
                box.files.write("a", Source(300_000, last))
        """)
        where = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])}

        def write(end: str) -> int:
            return subprocess.run([sys.executable, "-c", program, tmp_path / "mount", end], env=where).returncode

        for _ in range(10):
            kept.write_bytes(b"whole")
            assert write("killed") == -signal.SIGKILL
            assert kept.read_bytes() == b"whole"
        assert write("whole") == 0
        assert kept.read_bytes() == b"x" * 300_000

    def test_an_operation_that_the_box_kills(self, box: Sandbox) -> None:
        box.files.write("a", b"whole")
        killer = background(
            box,
            """
            for pid in filter(str.isdigit, os.listdir("/proc")):
                if int(pid) not in (1, os.getpid()):
                    try: os.kill(int(pid), 9)
                    except OSError: pass
            """,
        )
        ended = 0
        for _ in range(50):
            try:
                box.files.write("a", bytes(20_000_000))
                box.files.write("a", b"whole")
            except FileError as error:
                ended += "signal 9" in str(error)
        killer.close()
        assert ended
        assert len(box.files.read("a", length=1 << 25)) in (5, 20_000_000)
        box.files.write("a", b"new")
        assert box.files.read("a") == b"new"

    def test_a_new_file_that_does_not_fit_is_not_left(self) -> None:
        with Sandbox(workdir="/tmp", disk_mib=8, timeout_s=30) as small:
            refused(28, small.files.write, "a", bytes(12 << 20), new=True)
            assert small.files.list() == []
            small.files.write("a", bytes(4 << 20), new=True)
            assert small.files.stat("a").size_bytes == 4 << 20


class TestPlanted:
    """What the box has put where a file, a folder or a descriptor was expected."""

    @pytest.mark.parametrize("landlock", ["auto", "off"])
    def test_a_link_to_the_file_that_is_written_from(self, landlock: str, tmp_path: Path) -> None:
        """Through /proc the host's own file could be written to where only its mode is in the way."""
        source = tmp_path / "source"
        source.write_bytes(b"the host's")
        source.chmod(0o666)
        level = {"level": "L1"} if landlock == "off" else {}
        with Sandbox(workdir="/tmp", landlock=landlock, timeout_s=10, **level) as box:
            sh(box, "ln -s /proc/self/fd/0 planted; echo -n before, > real")
            with source.open("rb") as file, pytest.raises(FileError) as caught:
                box.files.write("planted", file, append=True)
            assert caught.value.errno in (13, 40)
            assert source.read_bytes() == b"the host's"
            with source.open("rb") as file:
                box.files.write("real", file, append=True)
            assert box.files.read("real") == b"before,the host's"

    def test_a_folder_that_is_swapped_for_a_link_while_it_is_removed(self, box: Sandbox) -> None:
        swap = """
            for make in (
                lambda: os.makedirs("gone/d/e"), lambda: open("gone/d/e/f", "w").close(),
                lambda: time.sleep(0.0003), lambda: os.rename("gone/d", f"old/{time.monotonic_ns()}"),
                lambda: os.symlink("/tmp/work/keep", "gone/d"),
                lambda: time.sleep(0.0003), lambda: os.unlink("gone/d"),
            ):
                try: make()
                except OSError: pass
        """
        sh(box, "mkdir -p old keep/e; touch keep/e/f keep/f")
        swapper = background(box, swap)
        removed = 0
        while removed < 200:
            try:
                box.files.remove("gone", recursive=True)
                removed += 1
            except FileError as error:
                assert error.errno in (2, 20, 39, 40, 116), error
        assert sh(box, "find keep | sort").split() == [b"keep", b"keep/e", b"keep/e/f", b"keep/f"]
        # The control: whoever goes by names does remove it.
        naive = """
            if not os.path.exists("keep/e/f"): break
            try:
                if not os.path.islink("gone/d"):
                    time.sleep(0.0001)
                    for name in os.listdir("gone/d/e"): os.unlink("gone/d/e/" + name)
            except OSError: pass
        """
        assert background(box, naive).wait().ok
        assert not box.files.exists("keep/e/f")
        stop(box, swapper)

    def test_a_file_that_is_swapped_for_a_link_while_it_is_packed(self, box: Sandbox, tmp_path: Path) -> None:
        sh(box, "mkdir d; echo other > other")
        swapper = background(
            box,
            """
            with open("f", "w") as file: file.write("mine")
            os.rename("f", "d/f")
            time.sleep(0.0003)
            os.symlink("/tmp/work/other", "l")
            os.rename("l", "d/f")
            time.sleep(0.0003)
            """,
        )
        seen: set[str] = set()
        number = 0
        while not {"link", "mine"} <= seen or number < 600:
            number += 1
            target = tmp_path / str(number)
            try:
                box.files.download("d", target)
            except FileError as error:
                swapped = error.errno in (22, 40)
                seen.add("link" if "link within" in str(error) else "swapped" if swapped else str(error))
            else:
                seen.update(one.read_text() for one in target.iterdir())
        stop(box, swapper)
        assert {"link", "mine"} <= seen <= {"link", "mine", "swapped"}

    def test_files_that_change_while_they_are_read(self, box: Sandbox, tmp_path: Path) -> None:
        sh(box, "mkdir d; touch d/grows d/shrinks d/stays; echo content > d/stays")
        changing = background(
            box,
            """
            with open("d/grows", "ab") as file:
                file.write(b"g" * 100_000)
                if file.tell() > 30_000_000: file.truncate(0)
            with open("d/shrinks", "wb") as file: file.write(b"s" * 300_000)
            """,
        )
        for number in range(40):
            target = tmp_path / str(number)
            box.files.download("d", target)
            assert (target / "stays").read_bytes() == b"content\n"
            # What is not there any more is zeros.
            assert set((target / "grows").read_bytes()) <= set(b"g\0")
            assert set((target / "shrinks").read_bytes()) <= set(b"s\0")
            assert len(box.files.read("d/grows", length=1000)) <= 1000
        stop(box, changing)

    def test_an_archive_whose_last_block_its_reader_leaves(self, box: Sandbox, tmp_path: Path) -> None:
        # One header, the content and the first of two blocks of zeros are as much as is read in one go.
        size = 256 * 1024 - 2 * 512
        sh(box, f"mkdir even; head -c {size} /dev/zero > even/file")
        box.files.download("even", tmp_path / "even")
        assert (tmp_path / "even" / "file").stat().st_size == size

    def test_folders_that_go_deeper_than_anybody_wants(self, box: Sandbox, tmp_path: Path) -> None:
        deep = "import os\nos.mkdir(n := '{}'); os.chdir(n)\nfor _ in range({}): os.mkdir('x'); os.chdir('x')"
        for name, depth in (("deep", 1900), ("deeper", 2500), ("usual", 200)):
            assert box.exec(["/usr/bin/python3", "-ISc", deep.format(name, depth)]).ok
        try:
            for name in ("deep", "deeper"):
                with pytest.raises(FileError, match="256 folders deep"):
                    box.files.download(name, tmp_path / name)
            assert list(tmp_path.iterdir()) == []
        finally:
            # Where it fails, pytest could not remove it.
            subprocess.run(["rm", "-rf", *tmp_path.iterdir()], check=True)
        box.files.download("usual", tmp_path / "usual")
        assert len([*os.walk(tmp_path / "usual")]) == 201
        for name in ("deep", "deeper", "usual"):
            box.files.remove(name, recursive=True)
        assert box.files.list() == []


def archive(*names: str, link: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as made:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = (tarfile.SYMTYPE, link) if link else (tarfile.REGTYPE, "")
            made.addfile(info)
    return buffer.getvalue()


LIES: dict[str, tuple[str, Callable[[Files], object]]] = {
    "more than was asked for": ("head -c 6 /dev/zero", lambda files: files.read("a", length=5)),
    "a listing of nonsense": ("echo nonsense", lambda files: files.list()),
    "a cut listing": ("head -c 37 /dev/zero | tr '\\0' '\\1'", lambda files: files.list()),
    "no entry": (":", lambda files: files.stat("a")),
    "two entries": ("head -c 74 /dev/zero", lambda files: files.stat("a")),
}


class TestLies:
    """Operations in whose place something else speaks."""

    @pytest.fixture
    def says(self, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """Has a script of the box answer for every operation that is waited for."""

        real = type(box).carry_out

        def put_in_place(script: str) -> None:
            def carry_out(self: Any, request: Any, stdio: Any, *, builtin: bool = False, **others: Any) -> Any:
                request.argv = [b"/bin/sh", b"-c", script.encode()]
                return real(self, request, stdio, builtin=False, **others)

            monkeypatch.setattr(type(box), "carry_out", carry_out)

        return put_in_place

    @pytest.mark.parametrize("lie", LIES)
    def test_what_is_no_answer_is_refused(self, lie: str, box: Sandbox, says: Callable[[str], None]) -> None:
        script, call = LIES[lie]
        says(script)
        with pytest.raises(BoxLost, match="the box sent"):
            call(box.files)

    def test_what_is_one_is_taken(self, box: Sandbox, says: Callable[[str], None]) -> None:
        says("head -c 37 /dev/zero")
        assert box.files.stat("a").kind == "file"
        says("echo -n 12345")
        assert box.files.read("a", length=5) == b"12345"

    @pytest.mark.parametrize("said", ["", "nonsense", "99999999999999999999 open", "-1 open", "2.5", "\\377\\377"])
    def test_reasons_that_can_not_be_read(self, said: str, box: Sandbox, says: Callable[[str], None]) -> None:
        says(f"printf -- '{said}' >&2; exit 1")
        assert refused(0, box.files.read, "a").have == "no reason that can be read"
        says("echo 2 open >&2; exit 1")
        refused(2, box.files.read, "a")

    def test_floods_are_bounded(self, box: Sandbox, says: Callable[[str], None]) -> None:
        for script in ("cat /dev/zero", "cat /dev/zero >&2"):
            says(script)
            with pytest.raises(FileError, match="output"):
                box.files.read("a", length=5)
            with pytest.raises(FileError, match="output"):
                box.files.mkdir("a")

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (archive("/etc/planted"), "relative name"),
            (archive("../planted"), "relative name"),
            (archive("a", "a"), "free"),
            (archive("l", link="../../etc"), "link within"),
            (archive("a")[:300], "no archive"),
            (archive("honest"), None),
        ],
    )
    def test_archives(
        self, sent: bytes, reason: str | None, box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        box.files.mkdir("d")
        box.files.write("archive", sent)

        def started(self: Files, operation: str, *_: Any, **__: Any) -> Process:
            assert operation == "pack"
            return box.start(["/bin/cat", "/tmp/work/archive"])

        monkeypatch.setattr(Files, "_started", started)
        if reason is None:
            box.files.download("d", tmp_path / "target")
            assert [one.name for one in (tmp_path / "target").iterdir()] == ["honest"]
        else:
            with pytest.raises(FileError, match=reason):
                box.files.download("d", tmp_path / "target")
            assert list(tmp_path.iterdir()) == []
