"""What a killed spawner leaves of its boxes' cgroups, and what is somebody's yet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from immure.plan.launch import Launch
from immure.runtimes.process.cgroups import sweep


@pytest.fixture
def swept(tmp_path: Path) -> Callable[[int], bool]:
    """Whether a sweep removes the cgroup of a spawner of this number."""

    def gone(pid: int) -> bool:
        launch = Launch()
        launch.cgroups = (str(tmp_path), str(tmp_path / "not here"))
        folder = tmp_path / f"immure-{pid}-1"
        folder.mkdir()
        sweep(launch)
        return not folder.exists()

    return gone


def named(name: str) -> tuple[int, int]:
    """A process of this name, and what to close for its end."""
    receives, sends = os.pipe()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(sends)
        Path("/proc/self/comm").write_text(name)
        os.write(told, b"1")
        os.read(receives, 1)
        os._exit(0)
    os.close(receives)
    os.close(told)
    os.read(ready, 1)
    os.close(ready)
    return pid, sends


def test_a_living_spawner_keeps_its_own(swept: Callable[[int], bool]) -> None:
    pid, end = named("immure-spawner")
    try:
        assert not swept(pid)
    finally:
        os.close(end)
        os.waitpid(pid, 0)


def test_one_that_is_gone_does_not(swept: Callable[[int], bool]) -> None:
    pid, end = named("immure-spawner")
    os.close(end)
    os.waitpid(pid, 0)
    assert swept(pid)


def test_nor_one_that_nobody_has_waited_for_yet(swept: Callable[[int], bool]) -> None:
    """Who was killed keeps name and number until then."""
    pid, end = named("immure-spawner")
    os.close(end)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{pid}/comm").read_text() == "immure-spawner\n", "the control"
    assert swept(pid)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("name", ["sh", "immure-spawner)", "x) S immure"])
def test_nor_somebody_else_of_its_number(name: str, swept: Callable[[int], bool]) -> None:
    pid, end = named(name)
    try:
        assert swept(pid)
    finally:
        os.close(end)
        os.waitpid(pid, 0)


def test_what_is_not_a_box_s_stays(tmp_path: Path) -> None:
    launch = Launch()
    launch.cgroups = (str(tmp_path),)
    (tmp_path / "other").mkdir()
    sweep(launch)
    assert (tmp_path / "other").is_dir()
