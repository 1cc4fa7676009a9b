"""Copies of boxes in machines of Firecracker's, with all that runs in them."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest

from firecracker.vmms import until
from immure import PIPE, AsyncSandbox, Process, RuntimeUnavailable, Sandbox, SetupFailed, Snapshot, SpecError
from immure.host.tree import below
from immure.runtimes.firecracker import box as firecracker_box

#: It answers each line with what it has counted.
SERVER = 'count=0; while read line; do count=$((count + 1)); echo "$line $count"; done'
DRAW = ["/bin/od", "-An", "-N16", "-tx1", "/dev/urandom"]


def serving(box: Sandbox) -> Process:
    return box.start(["/bin/sh", "-c", SERVER], stdin=PIPE)


def asked(process: Process, text: str) -> bytes:
    assert process.stdin is not None
    process.stdin.write(text.encode() + b"\n")
    return process.stdout.readline()


class TestCopies:
    def test_what_runs_goes_on_in_each_of_them(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            process = serving(box)
            assert asked(process, "one") == b"one 1\n"
            box.files.write("/tmp/kept", b"content")
            with box.snapshot() as snapshot:
                assert asked(process, "here") == b"here 2\n", "the box itself goes on"
                for _ in range(2):
                    with Sandbox.restore(snapshot) as copy:
                        assert copy.level.awarded == box.level.awarded
                        assert copy.evidence().taken == "after"
                        assert copy.id != box.id
                        (other,) = copy.processes
                        assert asked(other, "there") == b"there 2\n"
                        assert copy.files.read("/tmp/kept") == b"content"
                        assert copy.exec(["/bin/cat"], stdin=b"new").stdout == b"new"
            assert asked(process, "and on") == b"and on 3\n"
            assert box.exec(["/bin/cat"], stdin=b"new").stdout == b"new"

    def test_randomness_and_time_are_anew(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box, box.snapshot() as snapshot:
            time.sleep(1.1)
            drawn: list[bytes] = []
            for _ in range(2):
                with Sandbox.restore(snapshot) as copy:
                    drawn.append(bytes(copy.exec(DRAW).stdout))
                    assert abs(time.time() - float(copy.exec(["/bin/date", "+%s"]).stdout)) < 20
            assert len(set(drawn)) == 2

    def test_without_that_two_copies_draw_the_same(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """The control: it is being told the moment that makes them differ."""
        monkeypatch.setattr(firecracker_box, "this_moment", bytes)
        with Sandbox(**spec) as box, box.snapshot() as snapshot:
            drawn: list[bytes] = []
            for _ in range(2):
                with Sandbox.restore(snapshot) as copy:
                    drawn.append(first_drawn(copy))
            assert len(set(drawn)) == 1

    def test_forks(self, spec: dict[str, Any]) -> None:
        with Sandbox(name="parent", **spec) as box:
            process = serving(box)
            copies = box.fork(2)
            try:
                for number, copy in enumerate(copies):
                    assert copy.exec(["/bin/hostname"]).stdout == b"parent\n"
                    assert asked(copy.processes[0], str(number)) == f"{number} 1\n".encode()
                assert asked(process, "parent") == b"parent 1\n"
            finally:
                for copy in copies:
                    copy.close()

    def test_a_copy_of_a_copy(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            _held = serving(box)
            with box.snapshot() as snapshot, Sandbox.restore(snapshot) as copy:
                assert asked(copy.processes[0], "a") == b"a 1\n"
                with copy.snapshot() as second, Sandbox.restore(second) as other:
                    assert asked(other.processes[0], "b") == b"b 2\n"
                assert asked(copy.processes[0], "c") == b"c 2\n"

    def test_memory_is_shared_until_it_is_written(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box, box.snapshot() as snapshot, Sandbox.restore(snapshot) as copy:
            (vmm,) = below(copy._box.pid)
            maps = Path(f"/proc/{vmm}/maps").read_text().splitlines()
            assert {line.split()[1] for line in maps if "memfd:immure-machine" in line} == {"rw-p"}
            assert not [line for line in maps if "/machine/memory" in line]

    def test_awaited(self, spec: dict[str, Any]) -> None:
        async def main() -> None:
            async with AsyncSandbox(**spec) as box:
                await box.files.write("/tmp/kept", b"content")
                with await box.snapshot() as snapshot:
                    async with AsyncSandbox.restore(snapshot) as copy:
                        assert await copy.files.read("/tmp/kept") == b"content"
                assert (await box.exec(["/bin/true"])).ok

        asyncio.run(main())


class TestSaved:
    def test_it_outlives_the_machine_that_had_booted(self, spec: dict[str, Any], tmp_path: Path) -> None:
        """Nor is it of another one since that image was used again."""
        with Sandbox(**spec) as box:
            box.files.write("/tmp/kept", b"content")
            with box.snapshot() as snapshot:
                snapshot.save(tmp_path / "saved")
            (memory,) = [Path(path) for path, _ in box._launch.programs if Path(path).name == "memory"]
        with Sandbox(**spec) as other:
            assert other.exec(["/bin/true"]).ok
        aside = memory.parent.rename(memory.parent.with_name("aside"))
        try:
            with Sandbox.restore(Snapshot.load(tmp_path / "saved")) as copy:
                assert copy.files.read("/tmp/kept") == b"content"
        finally:
            aside.rename(memory.parent)
        sizes = {one.name: one.stat() for one in (tmp_path / "saved").iterdir()}
        assert sizes["memory"].st_size == 128 << 20
        assert sizes["memory"].st_blocks * 512 < 64 << 20, "zeroes take no room"

    def test_a_damaged_one(self, spec: dict[str, Any], tmp_path: Path) -> None:
        with Sandbox(**spec) as box, box.snapshot() as snapshot:
            snapshot.save(tmp_path / "saved")
        state = tmp_path / "saved/state"
        content = bytearray(state.read_bytes())
        content[len(content) // 2] ^= 1
        state.chmod(0o600)
        state.write_bytes(content)
        with pytest.raises(RuntimeUnavailable, match="damaged"):
            Snapshot.load(tmp_path / "saved")

    def test_of_another_firecracker(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box, box.snapshot() as snapshot:
            launch = snapshot.base
            assert [path for path, _ in launch.programs if Path(path).name == "firecracker"]
            launch.programs = tuple(
                (path, (0,) if Path(path).name == "firecracker" else what) for path, what in launch.programs
            )
            with pytest.raises(RuntimeUnavailable, match="made with"):
                Sandbox.restore(snapshot)

    def test_nothing_of_it_is_left(self, spec: dict[str, Any]) -> None:
        def held() -> list[str]:
            fds = [one for one in Path("/proc/self/fd").iterdir() if one.is_symlink()]
            return [name for name in (str(one.readlink()) for one in fds) if "memfd:immure" in name]

        before = held()
        with Sandbox(**spec) as box:
            with box.snapshot() as snapshot, Sandbox.restore(snapshot):
                pass
            with pytest.raises(SpecError):
                box.fork(0)
        until("end of what was held", lambda: held() == before)


def first_drawn(copy: Sandbox) -> bytes:
    """What its kernel gives whoever asks for randomness first: to every program, by AT_RANDOM."""
    return bytes(copy.exec(DRAW).stdout)


def test_a_copy_that_is_refused_says_why(spec: dict[str, Any]) -> None:
    with Sandbox(**spec) as box, box.snapshot() as snapshot:
        assert snapshot._machine is not None
        content = os.pread(snapshot._machine.state, 1 << 20, 0)
        other = os.memfd_create("immure-state")
        os.write(other, content[:-100])
        whole, snapshot._machine.state = snapshot._machine.state, other
        try:
            with pytest.raises(SetupFailed, match="can't go on") as caught:
                Sandbox.restore(snapshot)
            assert "CRC64" in (caught.value.have or "")
        finally:
            snapshot._machine.state = whole
            os.close(other)
        with Sandbox(**spec) as other_box:
            assert other_box._box.console() == b"", "what has booted is still there"
