"""A machine that is moved to another QEMU while its workload runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from feeding import feed
from immure import PIPE, AsyncSandbox, BoxLost, LevelNotReached, Migration, RuntimeUnavailable, Sandbox, SetupFailed
from immure.engine import migration
from immure.host.tree import below
from immure.runtimes.guest.memory import digest_of
from immure.runtimes.qemu import copies
from immure.runtimes.qemu.vmm import Vmm

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(120)]

#: A workload that computes all along, and says on demand how far it is.
WORK = "n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); done; echo $n"


@pytest.fixture
def box(kernel: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))
    with Sandbox(runtime="qemu", level="L3", image=str(image), workdir="/", memory_mib=128) as made:
        yield made


def vmm_of(box: Sandbox) -> int:
    (pid,) = below(box._box.pid)
    return pid


def test_what_runs_and_is_under_way_goes_on(box: Sandbox) -> None:
    sent = os.urandom(1_000_000)
    with (
        box.start(["/bin/sh", "-c", WORK]) as work,
        box.start(["/bin/cat"], stdin=PIPE) as cat,
        box.start(["/bin/sh", "-c", "read line; stty size; echo $line"], pty=(90, 30)) as shell,
    ):
        writer = feed(cat, sent)
        got = b""
        for _ in range(3):
            before = vmm_of(box)
            moved = box.migrate()
            got += cat.stdout.read1(100_000)
            assert vmm_of(box) != before
            assert not Path(f"/proc/{before}").exists()
            assert 0 < moved.downtime_s < moved.total_s
        got += cat.stdout.read()
        writer.join()
        assert got == sent
        shell.resize(100, 40)
        assert shell.stdin is not None
        shell.stdin.write(b"typed\n")
        assert b"40 100" in shell.stdout.read()
        box.files.write("/tmp/stop", b"")
        assert work.wait(20).ok
    assert box.exec(["/bin/true"]).ok


def test_it_is_measured_where_it_is(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {one.part: one.held for one in box.evidence().parts}
    box.migrate()
    assert {one.part: one.held for one in box.evidence().parts} == before

    def below_its_level(one: Any) -> None:
        raise LevelNotReached("the box was measured at L0", need="L3", have="L0")

    monkeypatch.setattr(migration, "measure", below_its_level)
    with pytest.raises(LevelNotReached):
        box.migrate()
    with pytest.raises(BoxLost):
        box.exec(["/bin/true"])


def test_a_copy_and_a_fork_afterwards(box: Sandbox) -> None:
    box.files.write("/tmp/kept", b"content")
    box.migrate()
    (fork,) = box.fork()
    with fork:
        # Its memory is shared with others, and so it goes along whole.
        fork.files.write("/tmp/own", b"of the fork")
        fork.migrate()
        assert fork.files.read("/tmp/kept") == b"content"
        assert fork.files.read("/tmp/own") == b"of the fork"
        with fork.snapshot() as taken, Sandbox.restore(taken) as other:
            assert other.files.read("/tmp/own") == b"of the fork"
    assert box.files.read("/tmp/kept") == b"content"


def test_one_that_waits_changes_nothing_of_the_memory(box: Sandbox) -> None:
    """Both have it, and the one runs while the other begins."""
    machine: Any = box._box
    with machine.parked():
        machine._vmm.monitor.ask("stop")
        before = digest_of(machine._vmm.memory)
        waiting = machine._begin_beside(machine.outer)
        assert waiting.monitor.ask("query-status")["status"] == "inmigrate"
        waiting.close()
        assert digest_of(machine._vmm.memory) == before
        machine._vmm.monitor.ask("cont")


def test_where_the_other_does_not_come_up_it_stays(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(vmm: Vmm, target: int, *, memory_is_sent: bool) -> float:
        raise SetupFailed("QEMU can't copy the machine", step="migrate", have="for a test")

    before = vmm_of(box)
    with monkeypatch.context() as patch, pytest.raises(SetupFailed, match="for a test"):
        patch.setattr(copies, "_send_state", refused)
        box.migrate()
    assert vmm_of(box) == before
    assert box.exec(["/bin/true"]).ok
    box.migrate()
    assert box.exec(["/bin/true"]).ok


def test_where_nobody_knows_it_ends(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may run there: it must not run here as well."""

    def lost(source: Vmm, target: Vmm) -> float:
        raise BoxLost("QEMU does not answer as it should", need="an event", have="its end")

    monkeypatch.setattr("immure.runtimes.qemu.box.move_machine", lost)
    with pytest.raises(BoxLost):
        box.migrate()
    with pytest.raises(BoxLost):
        box.exec(["/bin/true"])
    box.close()


def test_a_vmm_that_is_killed_meanwhile(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sending = copies._send_state

    def killed(vmm: Vmm, target: int, *, memory_is_sent: bool) -> float:
        os.kill(vmm_of(box), signal.SIGKILL)
        return sending(vmm, target, memory_is_sent=memory_is_sent)

    monkeypatch.setattr(copies, "_send_state", killed)
    with pytest.raises(BoxLost):
        box.migrate()
    box.close()


def test_no_machine() -> None:
    with Sandbox() as box, pytest.raises(RuntimeUnavailable, match="can't be moved"):
        box.migrate()


def test_awaited(kernel: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))

    async def main() -> None:
        async with AsyncSandbox(runtime="qemu", level="L3", image=str(image), workdir="/", memory_mib=128) as box:
            process = await box.start(["/bin/cat"], stdin=PIPE)
            assert isinstance(await box.migrate(), Migration)
            assert process.stdin is not None
            await process.stdin.write(b"line\n")
            assert await process.stdout.readline() == b"line\n"
            process.kill()
            await process.wait()

    asyncio.run(main())
