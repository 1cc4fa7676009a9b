"""A spawner that is killed: a clear error now, and the next box works."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from immure import BoxLost, ImmureError, Sandbox, SetupFailed, run
from immure.engine.prepare import host_facts
from immure.engine.spawners import close_all
from immure.host.native import native_program
from immure.runtimes.guest.carried import CarriedBox
from immure.runtimes.process import frames, spawner
from machine.machines import make_image
from runscs import runsc_of, using
from vmm_programs import named_vmm

from .processes import eventually, running, spawner_pids

pytestmark = pytest.mark.rootless
STRACE = shutil.which("strace")


def kill_spawners() -> set[int]:
    pids = spawner_pids()
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return pids


def kill_soon(delay: float) -> threading.Timer:
    timer = threading.Timer(delay, kill_spawners)
    timer.start()
    return timer


def check_is_clear(error: ImmureError) -> None:
    assert isinstance(error, BoxLost), repr(error)
    assert "spawner" in str(error)
    assert error.have
    assert error.hint


@pytest.fixture(autouse=True)
def a_warm_spawner() -> Iterator[None]:
    assert run(["true"]).ok
    yield
    assert run(["true"]).ok, "the next one works"


def test_while_a_command_runs() -> None:
    timer = kill_soon(0.2)
    with pytest.raises(BoxLost) as caught:
        run(["sleep", "30"])
    timer.join()
    check_is_clear(caught.value)


def test_while_a_command_runs_in_a_box() -> None:
    with Sandbox() as box:
        pid = box._box.pid
        timer = kill_soon(0.2)
        with pytest.raises(BoxLost):
            box.exec(["sleep", "30"])
        timer.join()
        assert eventually(lambda: not running(pid)), "the box ends with its spawner"
        with pytest.raises(BoxLost) as caught:
            box.exec(["true"])
        assert caught.value.hint


def test_between_two_commands_of_a_box() -> None:
    with Sandbox() as box:
        pid = box._box.pid
        kill_spawners()
        assert eventually(lambda: not running(pid))
        with pytest.raises(BoxLost):
            box.exec(["true"])


def test_a_box_that_has_lost_it_has_failed() -> None:
    with Sandbox() as box:
        assert box.state == "ready"
        kill_spawners()
        assert eventually(lambda: box.state == "failed")
        with pytest.raises(BoxLost):
            box.exec(["true"])
    assert box.state == "removed"


def test_before_a_box_is_made() -> None:
    kill_spawners()
    assert run(["true"]).ok, "a dead spawner is noticed and replaced"


def test_while_a_box_is_made() -> None:
    for step in range(40):
        run(["true"])
        timer = kill_soon(step * 0.0002)
        try:
            assert run(["true"]).exit.kind == "exited"
        except ImmureError as error:
            check_is_clear(error)
        timer.join()


@pytest.mark.parametrize("losses", [1, 2])
def test_one_that_could_not_start_is_replaced_once(losses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    close_all()
    left, send = [None] * losses, spawner.send

    def losing(socket: spawner.Socket, message: bytes, fds: list[int]) -> None:
        # A configuration has no kind.
        if left and frames.kind_of(message) > frames.DRAINED:
            left.pop()
        else:
            send(socket, message, fds)

    monkeypatch.setattr(spawner, "send", losing)
    if losses == 1:
        assert run(["true"]).ok
        return
    with pytest.raises(BoxLost) as caught:
        run(["true"])
    check_is_clear(caught.value)
    assert "8 bytes, [02," in (caught.value.have or "")


def test_the_error_comes_at_once() -> None:
    timer = kill_soon(0.2)
    began = time.monotonic()
    with pytest.raises(BoxLost):
        run(["sleep", "30"])
    assert time.monotonic() - began < 3
    timer.join()


@pytest.mark.root
def test_no_cgroup_is_left() -> None:
    if not host_facts().cgroups:
        pytest.skip("host: no cgroup can be written here")
    limits = {"pids": 50, "memory_mib": 64}
    run(["true"], **limits)
    killed = spawner_pids()
    timer = kill_soon(0.3)
    with pytest.raises(BoxLost):
        run(["sleep", "30"], **limits)
    timer.join()
    assert run(["true"], **limits).ok
    left = [
        str(path) for parent in host_facts().cgroups for pid in killed for path in _glob(parent.path, f"immure-{pid}-*")
    ]
    assert left == []


def _glob(folder: str, pattern: str) -> list[str]:
    from pathlib import Path

    return [str(path) for path in Path(folder).glob(pattern)]


def test_a_stopped_spawner_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawner, "_PATIENCE_MS", 300)
    box = Sandbox()
    pids = spawner_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    closing = threading.Thread(target=close_all, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert eventually(lambda: not running(box._box.pid)), "the box goes with its spawner"
    assert not any(running(pid) for pid in pids)
    box.close()


@pytest.mark.root
@pytest.mark.skipif(not STRACE, reason="needs strace")
def test_what_it_has_started_for_a_moment_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id map of a mount needs a process that holds it open. The spawner is killed as it ends that one."""
    monkeypatch.setenv("IMMURE_INIT", str(tracing(tmp_path, "--inject=pidfd_send_signal:signal=KILL:when=1")))
    with pytest.raises(ImmureError):
        run(["true"], mounts=[(str(tmp_path), "/work")])
    close_all()
    said = (tmp_path / "trace").read_text()
    assert "+++ killed by SIGKILL +++" in said
    assert "PR_SET_PDEATHSIG" in said, "the control: it is the process that was meant"
    monkeypatch.undo()


def tracing(folder: Path, *options: str) -> Path:
    """The native program under strace, which ends once nothing of it is left."""
    calls = "--trace=prctl,pidfd_send_signal"
    words = [str(STRACE), "-f", "-o", str(folder / "trace"), calls, *options, native_program()]
    program = folder / "init"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    return program


def test_whatever_is_asked_of_a_box_that_is_gone_says_so() -> None:
    with Sandbox() as box:
        kill_spawners()
        # Its end is seen before its stem's is, which may hear one more command until then.
        assert eventually(lambda: not box._box.alive() and not running(box._box.pid))
        verbs = [
            lambda: box.exec(["true"]),
            lambda: box.start(["true"]),
            lambda: box.start(["true"], pty=True),
            lambda: box.files.read("/tmp/a"),
            box.pause,
            box.resume,
        ]
        for verb in verbs:
            with pytest.raises(BoxLost, match="the box has ended"):
                verb()


@pytest.mark.parametrize("runtime", ["gvisor", "qemu"])
def test_it_is_why_whatever_the_carrier_has_said(
    runtime: Literal["gvisor", "qemu"], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that is killed takes the programs along that carry a box, and these may complain of it."""
    image = str(make_image(tmp_path / "image"))
    with named_vmm("qemu"), using(runsc_of("newest")):
        box = Sandbox(level="L3", runtime=runtime, image=image, workdir="/")
        carried = box._box
        assert isinstance(carried, CarriedBox)
        monkeypatch.setattr(carried, "said", lambda: "Received signal 13")
        with pytest.raises(SetupFailed, match="signal 13"):
            raise carried._explained(BoxLost("the control"))
        kill_spawners()
        assert eventually(lambda: not box._box.alive())
        with pytest.raises(BoxLost, match="the spawner is gone"):
            raise carried._explained(BoxLost("it ended"))
        box.close()
