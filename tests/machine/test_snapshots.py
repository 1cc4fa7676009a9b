"""Copies of boxes in virtual machines, and what goes on from them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from feeding import feed
from immure import (
    PIPE,
    AsyncSandbox,
    BoxLost,
    Pool,
    Process,
    RuntimeUnavailable,
    Sandbox,
    SetupFailed,
    Snapshot,
    SpecError,
)
from immure.host.tree import below
from immure.runtimes.qemu import box as qemu_box
from immure.runtimes.qemu import copies

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(120)]

#: It answers each line with what it has counted.
COUNTING = 'n=0; echo ready; while read line; do n=$((n+1)); echo "$line $n"; done'
RANDOM = ["/bin/od", "-An", "-N16", "-tx1", "/dev/urandom"]


@pytest.fixture(autouse=True)
def named(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))


@pytest.fixture(scope="module")
def parent(kernel: Path, image: Path) -> Iterator[Sandbox]:
    """A machine that is booted once for all that only copy it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMMURE_KERNEL", str(kernel))
        with Sandbox(runtime="qemu", level="L3", image=str(image), workdir="/", memory_mib=128, name="parent") as box:
            yield box


@pytest.fixture(scope="module")
def snapshot(parent: Sandbox) -> Iterator[Snapshot]:
    with parent.snapshot() as taken:
        yield taken


@pytest.fixture(scope="module")
def saved(parent: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder that is only copied."""
    folder = tmp_path_factory.mktemp("saved") / "snapshot"
    with parent.snapshot() as taken:
        taken.save(folder)
    return folder


def counting(box: Sandbox) -> Process:
    process = box.start(["/bin/sh", "-c", COUNTING], stdin=PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def asked(process: Process, text: str) -> str:
    assert process.stdin is not None
    process.stdin.write(text.encode() + b"\n")
    return process.stdout.readline().decode().strip()


def drawn(box: Sandbox) -> bytes:
    return box.exec(RANDOM).stdout


class TestCopies:
    def test_what_runs_goes_on_in_each_of_them(self, parent: Sandbox) -> None:
        with counting(parent) as process:
            assert asked(process, "one") == "one 1"
            parent.files.write("/tmp/kept", b"content")
            with parent.snapshot() as taken:
                assert asked(process, "here") == "here 2"
                for _ in range(2):
                    with Sandbox.restore(taken) as copy:
                        assert copy.evidence().taken == "after"
                        assert copy.level.awarded == parent.level.awarded
                        assert copy.id != parent.id
                        (other,) = copy.processes
                        assert asked(other, "there") == "there 2"
                        assert copy.files.read("/tmp/kept") == b"content"
                        assert copy.exec(["/bin/cat"], stdin=b"new").stdout == b"new"
                        assert other.stdin is not None
                        other.stdin.close()
                        assert other.wait().ok
            assert asked(process, "and on") == "and on 3"

    def test_each_has_a_memory_of_its_own(self, parent: Sandbox, snapshot: Snapshot) -> None:
        content = os.urandom(4 << 20)
        with Sandbox.restore(snapshot) as first, Sandbox.restore(snapshot) as second:
            first.files.write("/tmp/mine", content)
            assert first.files.read("/tmp/mine") == content
            for other in (second, parent):
                assert other.exec(["/bin/ls", "/tmp/mine"]).exit.code == 1
        with Sandbox.restore(snapshot) as third:
            assert third.exec(["/bin/ls", "/tmp/mine"]).exit.code == 1

    def test_nobody_can_change_what_they_go_on_from(self, snapshot: Snapshot) -> None:
        machine = snapshot.standing.machine
        assert machine is not None
        assert machine.memory is not None
        writable = os.open(f"/proc/self/fd/{machine.memory}", os.O_RDWR)
        try:
            with pytest.raises(PermissionError):
                os.pwrite(writable, b"x", 0)
            with pytest.raises(PermissionError):
                os.ftruncate(writable, 0)
        finally:
            os.close(writable)

    def test_each_draws_other_numbers_and_knows_the_time(self, parent: Sandbox, snapshot: Snapshot) -> None:
        time.sleep(1.1)
        numbers = {drawn(parent)}
        for _ in range(3):
            with Sandbox.restore(snapshot) as copy:
                before = int(time.time())
                told = int(copy.exec(["/bin/date", "+%s"]).stdout)
                assert before - 1 <= told <= time.time() + 1
                numbers.add(drawn(copy))
        assert len(numbers) == 4

    def test_without_new_randomness_they_would_draw_the_same(
        self, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The control: nothing is told of the moment. A kernel takes up randomness of its own now and then, but not so
        soon after it was given some.
        """
        with Sandbox.restore(snapshot) as fresh, fresh.snapshot() as taken:
            monkeypatch.setattr(qemu_box, "this_moment", bytes)
            numbers: list[bytes] = []
            while len(set(numbers)) == len(numbers) < 15:
                with Sandbox.restore(taken) as copy:
                    numbers.append(drawn(copy))
        assert len(set(numbers)) < len(numbers)

    def test_a_copy_of_a_copy(self, parent: Sandbox) -> None:
        with counting(parent) as process, parent.snapshot() as taken, Sandbox.restore(taken) as copy:
            assert asked(copy.processes[0], "a") == "a 1"
            copy.files.write("/tmp/second", b"of the copy")
            with copy.snapshot() as second, Sandbox.restore(second) as other:
                assert asked(other.processes[0], "b") == "b 2"
                assert other.files.read("/tmp/second") == b"of the copy"
                with other.snapshot() as third, Sandbox.restore(third) as last:
                    assert asked(last.processes[0], "c") == "c 3"
                    assert len({drawn(one) for one in (parent, copy, other, last)}) == 4
            assert asked(copy.processes[0], "d") == "d 2"
            assert asked(process, "e") == "e 1"

    def test_forks(self, parent: Sandbox) -> None:
        with counting(parent) as process:
            copies = parent.fork(3)
            try:
                for number, copy in enumerate(copies):
                    assert copy.exec(["/bin/hostname"]).stdout == b"parent\n"
                    assert asked(copy.processes[0], str(number)) == f"{number} 1"
                assert len({drawn(copy) for copy in copies}) == 3
                assert asked(process, "parent") == "parent 1"
            finally:
                for copy in copies:
                    copy.close()

    def test_a_fork_that_fails_while_the_copy_is_made(self, parent: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody writes to a descriptor any more whose number may be another file's."""
        before = {one.name for one in Path("/proc/self/fd").iterdir()}
        filled: list[int] = []

        def slowly(source: int, fd: int) -> None:
            time.sleep(0.5)
            filled.append(os.fstat(fd).st_size)

        def refused(*_: object) -> Sandbox:
            raise RuntimeUnavailable("for a test")

        with monkeypatch.context() as patch, pytest.raises(RuntimeUnavailable, match="for a test"):
            patch.setattr(copies, "fill_and_seal", slowly)
            patch.setattr(Sandbox, "_going_on", refused)
            parent.fork()
        assert filled == [128 << 20], "it was waited for"
        assert {one.name for one in Path("/proc/self/fd").iterdir()} <= before
        assert parent.exec(["/bin/true"]).ok

    def test_a_terminal_and_a_pause(self, parent: Sandbox) -> None:
        script = "read line; stty size; echo $line"
        with parent.start(["/bin/sh", "-c", script], pty=(90, 30)):
            time.sleep(0.3)
            with parent.snapshot() as taken, Sandbox.restore(taken) as copy:
                (other,) = copy.processes
                copy.pause()
                copy.resume()
                other.resize(100, 40)
                assert other.stdin is not None
                other.stdin.write(b"typed\n")
                assert other.stdout.read().replace(b"\r\n", b"\n") == b"typed\n40 100\ntyped\n"

    def test_a_caller_that_writes_and_reads_all_along_loses_nothing(self, parent: Sandbox) -> None:
        sent = os.urandom(2_000_000)
        with parent.start(["/bin/cat"], stdin=PIPE) as process:
            writer = feed(process, sent)
            got = b""
            for _ in range(4):
                parent.snapshot().close()
                got += process.stdout.read1(200_000)
            got += process.stdout.read()
            writer.join()
        assert got == sent

    def test_boxes_of_a_pool(self, snapshot: Snapshot) -> None:
        with Pool(snapshot=snapshot, size=2) as pool:
            for _ in range(3):
                with pool.claim() as claimed:
                    assert claimed.exec(["/bin/true"]).ok

    def test_awaited(self, snapshot: Snapshot) -> None:
        async def main() -> None:
            async with AsyncSandbox.restore(snapshot) as box:
                process = await box.start(["/bin/cat"], stdin=PIPE)
                (copy,) = await box.fork()
                (other,) = copy.processes
                assert other.stdin is not None
                await other.stdin.write(b"line\n")
                assert await other.stdout.readline() == b"line\n"
                await copy.close()
                process.kill()
                await process.wait()

        asyncio.run(main())


class TestKept:
    def test_one_that_was_saved_is_another_day_s(self, parent: Sandbox, tmp_path: Path) -> None:
        with counting(parent) as process:
            assert asked(process, "x") == "x 1"
            taken = parent.snapshot()
        taken.save(tmp_path / "saved")
        taken.save(tmp_path / "again")
        taken.close()
        assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o700
        memory = (tmp_path / "saved/memory").stat()
        assert memory.st_blocks * 512 < memory.st_size, "holes stay holes"
        for name in ("saved", "again"):
            with Snapshot.load(tmp_path / name) as loaded, Sandbox.restore(loaded) as copy:
                assert asked(copy.processes[0], name) == f"{name} 2"
        assert (tmp_path / "saved").is_dir()
        with pytest.raises(SpecError, match="target"):
            Snapshot.load(tmp_path / "saved").save(tmp_path / "again")

    def test_that_of_a_copy_has_its_memory_too(self, snapshot: Snapshot, tmp_path: Path) -> None:
        with Sandbox.restore(snapshot) as copy:
            copy.files.write("/tmp/second", b"of the copy")
            with copy.snapshot() as second:
                second.save(tmp_path / "saved")
        assert not (tmp_path / "saved/memory").exists()
        with Snapshot.load(tmp_path / "saved") as loaded, Sandbox.restore(loaded) as other:
            assert other.files.read("/tmp/second") == b"of the copy"

    def test_where_there_is_no_room(self, snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(target: int, source: int, offset: int, count: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch, pytest.raises(SetupFailed, match="can't be saved") as caught:
            patch.setattr(os, "sendfile", full)
            snapshot.save(tmp_path / "saved")
        assert caught.value.errno == errno.ENOSPC
        assert list(tmp_path.iterdir()) == []
        with Sandbox.restore(snapshot) as copy:
            assert copy.exec(["/bin/true"]).ok


class TestRefused:
    def test_a_box_that_writes_to_folders_of_the_host(self, kernel: Path, image: Path, tmp_path: Path) -> None:
        mounts = [(str(tmp_path), "/work", "rw")]
        with Sandbox(runtime="qemu", level="L3", image=str(image), mounts=mounts, workdir="/") as box:
            with pytest.raises(RuntimeUnavailable, match="can't be copied"):
                box.snapshot()
            with pytest.raises(RuntimeUnavailable, match="can't be copied"):
                box.fork()
            box.migrate()
            box.files.write("/work/made", b"in the machine")
        assert (tmp_path / "made").read_bytes() == b"in the machine"

    @pytest.fixture
    def own(self, saved: Path, tmp_path: Path) -> Path:
        return Path(shutil.copytree(saved, tmp_path / "own"))

    @pytest.mark.parametrize("name", ["state", "memory"])
    def test_one_that_is_damaged(self, own: Path, name: str) -> None:
        with (own / name).open("r+b") as file:
            file.seek(9000)
            byte = file.read(1)
            file.seek(9000)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(RuntimeUnavailable, match="damaged"):
            Snapshot.load(own)

    def test_one_of_another_size(self, own: Path) -> None:
        with (own / "memory").open("r+b") as file:
            file.truncate(256 << 20)
        with pytest.raises(SpecError, match="no snapshot"):
            Snapshot.load(own)

    def test_one_without_a_state(self, own: Path) -> None:
        (own / "state").unlink()
        with pytest.raises(SpecError, match="state"):
            Snapshot.load(own)

    def test_links_are_not_followed(self, own: Path) -> None:
        (own / "state").rename(own / "other")
        (own / "state").symlink_to("other")
        with pytest.raises(SpecError, match="no snapshot"):
            Snapshot.load(own)

    def test_one_of_another_host(self, own: Path) -> None:
        changed(own, machine="x86_64/0123456789abcdef")
        with Snapshot.load(own) as loaded, pytest.raises(RuntimeUnavailable, match="x86_64/0123456789abcdef"):
            Sandbox.restore(loaded)

    def test_one_of_another_version(self, own: Path) -> None:
        changed(own, form=1)
        with pytest.raises(RuntimeUnavailable, match="another version"):
            Snapshot.load(own)

    def test_a_state_that_qemu_does_not_take(self, snapshot: Snapshot) -> None:
        """Somebody who can make a checksum: QEMU itself refuses, and nothing is left."""
        machine = snapshot.standing.machine
        assert machine is not None
        size = os.fstat(machine.state).st_size
        whole = os.pread(machine.state, size, 0)
        try:
            os.pwrite(machine.state, b"\xff" * 4096, size // 2)
            with pytest.raises((SetupFailed, BoxLost)) as caught:
                Sandbox.restore(snapshot)
            assert "machine" in str(caught.value)
        finally:
            os.pwrite(machine.state, whole, 0)
        with Sandbox.restore(snapshot) as copy:
            assert copy.exec(["/bin/true"]).ok

    def test_one_that_is_closed(self, parent: Sandbox) -> None:
        taken = parent.snapshot()
        taken.close()
        with pytest.raises(BoxLost, match="gone"):
            Sandbox.restore(taken)

    def test_a_box_whose_vmm_is_killed(self, snapshot: Snapshot) -> None:
        import signal

        with Sandbox.restore(snapshot) as copy:
            for pid in below(copy._box.pid):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(BoxLost):
                copy.snapshot()


def changed(folder: Path, **fields: object) -> None:
    file = folder / "snapshot.msgpack"
    manifest = msgspec.msgpack.decode(file.read_bytes())
    file.write_bytes(msgspec.msgpack.encode({**manifest, **fields}))


def test_a_caller_that_is_killed_leaves_nothing(saved: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from immure import Sandbox, Snapshot\n"
        "box = Sandbox.restore(Snapshot.load(sys.argv[1]))\n"
        "(fork,) = box.fork()\n"
        "print(box._box.pid, fork._box.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, saved], capture_output=True, text=True, check=False)
    pids = killed.stdout.split()
    assert len(pids) == 2, killed.stderr
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
