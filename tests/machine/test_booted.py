"""Machines that go on from the memory of one that had booted and had done nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from immure import Sandbox, SetupFailed, Snapshot, run
from immure.engine import booted_machines
from immure.runtimes.guest.memory import digest_of

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(120)]

RANDOM = ["/bin/od", "-An", "-N16", "-tx1", "/dev/urandom"]


@pytest.fixture(autouse=True)
def settings(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of this test's own."""
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def spec(image: Path) -> dict[str, Any]:
    return {"runtime": "qemu", "level": "L3", "image": str(image), "workdir": "/", "memory_mib": 128}


def folders() -> list[Path]:
    """Machines that have booted."""
    return sorted(Path(os.environ["XDG_CACHE_HOME"], "immure/images").glob("[!.]*.machine"))


def how(box: Sandbox) -> str:
    (clause,) = [one for one in box.exec(["/bin/true"]).report if one.clause == "runtime"]
    return clause.by


def test_the_first_is_booted_and_others_go_on_from_it(spec: dict[str, Any]) -> None:
    with Sandbox(**spec) as box:
        (made,) = folders()
        before = {one.name: digest(one) for one in made.iterdir()}
        assert "that had booted" in how(box)
        box.files.write("/tmp/mine", os.urandom(3 << 20))
        evidence = box.evidence()
        assert (evidence.taken, evidence.awarded) == ("before_first_command", "L3")
        assert all(one.held for one in evidence.parts)
        with Sandbox(**spec) as other:
            assert other.exec(["/bin/ls", "/tmp/mine"]).exit.code == 1
    assert folders() == [made]
    assert {one.name: digest(one) for one in made.iterdir()} == before, "nobody changes it"


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return digest_of(file.fileno())


def test_each_draws_other_numbers_and_knows_the_time(spec: dict[str, Any]) -> None:
    numbers = set()
    for _ in range(3):
        with Sandbox(**spec) as box:
            before = int(time.time())
            assert before - 1 <= int(box.exec(["/bin/date", "+%s"]).stdout) <= time.time() + 1
            numbers.add(box.exec(RANDOM).stdout)
    assert len(numbers) == 3
    assert len(folders()) == 1


def test_another_machine_is_another_one(spec: dict[str, Any]) -> None:
    others = (
        {"memory_mib": 160},
        {"cpus": 2, "protections": {"cpus": "best_effort"}},
        {"disk_mib": 8},
        {"disk_mib": 9},
    )
    for changes in ({}, *others):
        assert run(["/bin/true"], **{**spec, **changes}).ok
    assert len(folders()) == 5
    # What our init is told comes later: the same will do.
    assert run(["/bin/true"], **{**spec, "user": 7, "env": {"A": "b"}, "pids": 9}).ok
    assert len(folders()) == 5


def test_each_boots_by_itself_where_that_is_asked_for(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_BOOT_EACH", "1")
    with Sandbox(**spec) as box:
        assert "had booted" not in how(box)
    assert folders() == []


def test_one_with_folders_of_the_host_boots_by_itself(spec: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    with Sandbox(**spec, mounts=[(str(tmp_path / "shown"), "/work", "ro")]) as box:
        assert "had booted" not in how(box)
    assert folders() == []


def test_two_callers_at_once_boot_one(spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    booted: list[int] = []
    boot = booted_machines._boot

    def counted(*arguments: Any) -> None:
        booted.append(1)
        boot(*arguments)

    monkeypatch.setattr(booted_machines, "_boot", counted)
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(run(["/bin/true"], **spec).ok)) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert (results, booted) == ([True] * 3, [1])


@pytest.mark.parametrize("name", ["state", "memory"])
def test_one_that_can_not_be_used_is_forgotten(spec: dict[str, Any], name: str) -> None:
    assert run(["/bin/true"], **spec).ok
    (made,) = folders()
    (made / name).chmod(0o644)
    (made / name).write_bytes(b"nothing that was one" * 1000)
    with pytest.raises(SetupFailed):
        run(["/bin/true"], **spec)
    assert folders() == []
    assert run(["/bin/true"], **spec).ok


def test_a_copy_outlives_it(spec: dict[str, Any], tmp_path: Path) -> None:
    with Sandbox(**spec) as box:
        box.files.write("/tmp/kept", b"content")
        with box.snapshot() as taken:
            taken.save(tmp_path / "saved")
    for one in (*folders()[0].iterdir(), folders()[0]):
        one.rmdir() if one.is_dir() else one.unlink()
    with Snapshot.load(tmp_path / "saved") as loaded, Sandbox.restore(loaded) as copy:
        assert copy.files.read("/tmp/kept") == b"content"


def test_a_caller_that_is_killed_while_one_boots(spec: dict[str, Any]) -> None:
    program = f"from immure import run\nrun(['/bin/true'], **{spec!r})"
    above = Path(os.environ["XDG_CACHE_HOME"], "immure/images")
    with subprocess.Popen([sys.executable, "-c", program]) as caller:
        until = time.monotonic() + 60
        while not list(above.glob(".*.machine.part/image")):
            assert time.monotonic() < until
            time.sleep(0.01)
        caller.send_signal(signal.SIGKILL)
    assert folders() == []
    assert run(["/bin/true"], **spec).ok
    assert len(folders()) == 1
