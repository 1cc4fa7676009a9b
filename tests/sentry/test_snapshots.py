"""Copies of boxes with all that runs in them."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from feeding import feed
from immure import (
    PIPE,
    AsyncPool,
    AsyncSandbox,
    BoxError,
    BoxLost,
    Pool,
    Process,
    RuntimeUnavailable,
    Sandbox,
    Snapshot,
    SpecError,
)
from runscs import VERSIONS, runsc_of, using

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]

#: Its imports are done once; it answers each line with what it has counted, what is random, and the time.
SERVER = """
import json, os, sys, time
count = 0
print("ready", flush=True)
for line in sys.stdin:
    count += 1
    print(json.dumps([line.strip(), count, os.urandom(8).hex(), time.time(), time.monotonic()]), flush=True)
"""


def serving(box: Sandbox) -> Process:
    process = box.start(["/usr/bin/python3", "-ISc", SERVER], stdin=PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def asked(process: Process, text: str) -> list[object]:
    import json

    assert process.stdin is not None
    process.stdin.write(text.encode() + b"\n")
    return json.loads(process.stdout.readline())


def folders() -> set[Path]:
    import tempfile

    return set(Path(tempfile.gettempdir()).glob("immure-snapshot-*"))


class TestCopies:
    def test_what_runs_goes_on_in_each_of_them(self, runsc: Path) -> None:
        before = folders()
        with Sandbox(level="L3") as box:
            process = serving(box)
            assert asked(process, "one")[:2] == ["one", 1]
            box.files.write("/tmp/kept", b"content")
            with box.snapshot() as snapshot:
                assert asked(process, "here")[:2] == ["here", 2]
                answers = []
                for _ in range(2):
                    with Sandbox.restore(snapshot) as copy:
                        assert copy.level.awarded == "L3"
                        assert copy.evidence().taken == "after"
                        (other,) = copy.processes
                        answers.append(asked(other, "there"))
                        assert copy.files.read("/tmp/kept") == b"content"
                        assert copy.exec(["cat"], stdin=b"new").stdout == b"new"
                        assert other.stdin is not None
                        other.stdin.close()
                        assert other.wait().ok
                assert [answer[:2] for answer in answers] == [["there", 2]] * 2
            assert asked(process, "and on")[:2] == ["and on", 3]
        assert folders() <= before

    def test_randomness_and_time_are_anew(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            process = serving(box)
            first = asked(process, "x")
            with box.snapshot() as snapshot:
                time.sleep(1.1)
                drawn, now = {first[2]}, time.time()
                for _ in range(3):
                    with Sandbox.restore(snapshot) as copy:
                        answer = asked(copy.processes[0], "x")
                        drawn.add(answer[2])
                        assert isinstance(answer[3], float)
                        # The clock is the host's, not that of the moment that was copied.
                        assert now - 0.5 < answer[3] < time.time() + 0.5
                assert len(drawn) == 4

    def test_a_copy_of_a_copy(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            _held = serving(box)
            with box.snapshot() as snapshot, Sandbox.restore(snapshot) as copy:
                assert asked(copy.processes[0], "a")[1] == 1
                with copy.snapshot() as second, Sandbox.restore(second) as other:
                    assert asked(other.processes[0], "b")[1] == 2
                assert asked(copy.processes[0], "c")[1] == 2

    def test_forks(self, runsc: Path) -> None:
        with Sandbox(level="L3", name="parent") as box:
            process = serving(box)
            copies = box.fork(3)
            try:
                for number, copy in enumerate(copies):
                    assert copy.exec(["hostname"]).stdout == b"parent\n"
                    assert asked(copy.processes[0], str(number))[:2] == [str(number), 1]
                assert asked(process, "parent")[1] == 1
            finally:
                for copy in copies:
                    copy.close()
            with pytest.raises(SpecError):
                box.fork(0)

    def test_what_was_written_and_not_read_is_there(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            process = box.start(["/bin/sh", "-c", 'echo before; read line; echo "after $line"'], stdin=PIPE)
            assert process.stdout.readline() == b"before\n"
            quiet = box.start(["/bin/sh", "-c", "sleep 0.2; echo late; echo wrong >&2; read line; exit 3"], stdin=PIPE)
            with box.snapshot() as snapshot, Sandbox.restore(snapshot) as copy:
                first, second = copy.processes
                assert first.stdin is not None
                first.stdin.write(b"all\n")
                assert first.stdout.read() == b"after all\n"
                assert second.stdout.readline() == b"late\n"
                assert second.stdin is not None
                second.stdin.close()
                result = second.wait()
                assert (result.exit.code, result.stderr) == (3, b"wrong\n")
                assert result.argv[0] == "/bin/sh"
            quiet.kill()

    def test_a_terminal_is_one_there_too(self, newest: Path) -> None:
        with Sandbox(level="L3") as box:
            process = box.start(["/bin/sh", "-c", "read line; stty size; echo $line"], pty=(90, 30))
            time.sleep(0.1)
            with box.snapshot() as snapshot, Sandbox.restore(snapshot) as copy:
                (other,) = copy.processes
                other.resize(100, 40)
                assert other.stdin is not None
                other.stdin.write(b"typed\n")
                assert other.stdout.read().replace(b"\r\n", b"\n") == b"typed\n40 100\ntyped\n"
            process.kill()

    def test_a_caller_that_writes_and_reads_all_along_loses_nothing(self, runsc: Path) -> None:
        """The box goes on: what is said to it meanwhile waits."""
        with Sandbox(level="L3") as box:
            process = box.start(["cat"], stdin=PIPE)
            sent = os.urandom(3_000_000)
            writer = feed(process, sent)
            got = b""
            for _ in range(4):
                box.snapshot().close()
                got += process.stdout.read1(200_000)
            got += process.stdout.read()
            writer.join()
            assert got == sent
            assert process.wait().ok

    def test_mounts_and_limits_are_those_of_the_box(self, runsc: Path, tmp_path: Path) -> None:
        tmp_path.joinpath("f").write_bytes(b"of the host")
        tmp_path.joinpath("f").chmod(0o644)
        box = Sandbox(level="L3", mounts=[(str(tmp_path), "/work", "rw")], env={"A": "b"}, timeout_s=9)
        with box, box.snapshot() as snapshot, Sandbox.restore(snapshot) as copy:
            assert copy.files.read("/work/f") == b"of the host"
            copy.files.write("/work/g", b"of the copy")
            assert tmp_path.joinpath("g").read_bytes() == b"of the copy"
            assert tmp_path.joinpath("g").stat().st_uid == os.geteuid()
            assert copy.exec(["/bin/sh", "-c", "echo $A; pwd"]).stdout == b"b\n/work\n"

    def test_awaited(self, runsc: Path) -> None:
        async def main() -> None:
            async with AsyncSandbox(level="L3") as box:
                process = await box.start(["cat"], stdin=PIPE)
                with await box.snapshot() as snapshot:
                    async with AsyncSandbox.restore(snapshot) as copy:
                        (other,) = copy.processes
                        assert other.stdin is not None
                        await other.stdin.write(b"line\n")
                        assert await other.stdout.readline() == b"line\n"
                copies = await box.fork(2)
                for copy in copies:
                    assert (await copy.exec(["true"])).ok
                    await copy.close()
                process.kill()
                await process.wait()

        asyncio.run(main())


class TestPools:
    def test_each_box_goes_on_from_there(self, newest: Path) -> None:
        with Sandbox(level="L3") as box:
            _held = serving(box)
            with box.snapshot() as snapshot, Pool(snapshot=snapshot, size=2) as pool:
                for _ in range(3):
                    with pool.claim() as claimed:
                        assert asked(claimed.processes[0], "x")[:2] == ["x", 1]
        with pytest.raises(SpecError):
            Pool(snapshot=snapshot, level="L3")

    def test_awaited(self, newest: Path) -> None:
        async def main() -> None:
            async with AsyncSandbox(level="L3") as box:
                process = await box.start(["cat"], stdin=PIPE)
                with await box.snapshot() as snapshot:
                    process.close()
                    async with AsyncPool(snapshot=snapshot, size=1) as pool, await pool.claim() as claimed:
                        (other,) = claimed.processes
                        assert other.stdin is not None
                        await other.stdin.write(b"x\n")
                        assert await other.stdout.readline() == b"x\n"

        asyncio.run(main())


class TestKept:
    def test_one_that_was_saved_is_another_day_s(self, runsc: Path, tmp_path: Path) -> None:
        with Sandbox(level="L3") as box:
            _held = serving(box)
            snapshot = box.snapshot()
            snapshot.save(tmp_path / "saved")
            snapshot.save(tmp_path / "again")
            snapshot.close()
            del snapshot
            gc.collect()
        for name in ("saved", "again"):
            with Snapshot.load(tmp_path / name) as loaded, Sandbox.restore(loaded) as copy:
                assert asked(copy.processes[0], name)[:2] == [name, 1]
        assert (tmp_path / "saved").is_dir()
        with pytest.raises(SpecError, match="target"):
            Snapshot.load(tmp_path / "saved").save(tmp_path / "again")

    def test_one_that_nobody_holds_is_removed(self, newest: Path) -> None:
        before = folders()
        with Sandbox(level="L3") as box:
            snapshot = box.snapshot()
            assert len(folders() - before) == 1
            del snapshot
            gc.collect()
        assert folders() <= before

    def test_those_of_a_caller_that_was_killed_go_with_the_next(self, newest: Path) -> None:
        before = folders()
        program = (
            "import os, signal\n"
            "from immure import Sandbox\n"
            "snapshot = Sandbox(level='L3').snapshot()\n"
            "print(snapshot.path, flush=True)\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=False)
        left = Path(killed.stdout.strip())
        assert left in folders()
        with Sandbox(level="L3") as box, box.snapshot() as held:
            assert not left.exists()
            # What somebody holds is swept by nobody.
            box.snapshot().close()
            assert held.path.exists()
        assert folders() <= before

    def test_a_forked_child_leaves_it_alone(self, newest: Path) -> None:
        with Sandbox(level="L3") as box, box.snapshot() as snapshot:
            pid = os.fork()
            if pid == 0:
                snapshot.close()
                os._exit(0)
            os.waitpid(pid, 0)
            assert snapshot.path.exists()

    def test_nobody_else_can_read_it(self, newest: Path) -> None:
        with Sandbox(level="L3") as box, box.snapshot() as snapshot:
            assert snapshot.path.stat().st_mode & 0o777 == 0o700


class TestRefused:
    def test_a_box_with_the_host_s_kernel(self) -> None:
        with Sandbox() as box:
            with pytest.raises(RuntimeUnavailable, match="can't be copied"):
                box.snapshot()
            assert box.processes == ()

    def test_another_runsc(self) -> None:
        newest, debian = (runsc_of(version) for version in VERSIONS)
        with using(newest), Sandbox(level="L3") as box:
            snapshot = box.snapshot()
        # It is the one that is named in the snapshot that counts.
        with using(debian), snapshot, Sandbox.restore(snapshot) as copy:
            assert copy.exec(["true"]).ok

    def test_a_runsc_that_has_changed(self, newest: Path, tmp_path: Path) -> None:
        import shutil

        program = tmp_path / "runsc"
        shutil.copy(newest, program)
        with using(program), Sandbox(level="L3") as box, box.snapshot() as snapshot:
            os.utime(program, (1, 1))
            with pytest.raises(RuntimeUnavailable, match="can't be used here"):
                Sandbox.restore(snapshot)

    def test_one_that_is_gone_or_damaged(self, newest: Path, tmp_path: Path) -> None:
        with pytest.raises(SpecError, match="no snapshot"):
            Snapshot.load(tmp_path)
        with Sandbox(level="L3") as box:
            snapshot = box.snapshot()
            snapshot.save(tmp_path / "saved")
            closed = box.snapshot()
            closed.close()
            with pytest.raises(BoxLost, match="gone"):
                Sandbox.restore(closed)
        for file in (tmp_path / "saved" / "image").iterdir():
            half = file.read_bytes()[: file.stat().st_size // 2]
            file.unlink()
            file.write_bytes(half)
        with pytest.raises(BoxError):
            Sandbox.restore(Snapshot.load(tmp_path / "saved"))
        manifest = tmp_path / "saved" / "snapshot.msgpack"
        manifest.write_bytes(manifest.read_bytes()[:-1])
        with pytest.raises(SpecError, match="no snapshot"):
            Snapshot.load(tmp_path / "saved")

    def test_a_box_that_has_ended(self, newest: Path) -> None:
        box = Sandbox(level="L3")
        box.close()
        with pytest.raises(BoxLost):
            box.snapshot()
