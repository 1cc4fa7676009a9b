"""Thousands of commands leave no trace in the caller, the spawner, or the box."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest

from immure import ExecFailed, Sandbox, run

from .processes import descendants, eventually, open_descriptors, resident_kib, spawner_pids

pytestmark = [pytest.mark.rootless, pytest.mark.slow]

COMMANDS = 2_000


def zombies() -> list[str]:
    """In the boxes and below the spawners."""
    below = [one for pid in spawner_pids() for one in descendants(pid)]
    return [f"{one.pid} {one.name}" for one in below if one.state == "Z"]


def few_more(before: int, after: int, allowed: int) -> bool:
    return after <= before + allowed


def run_commands(box: Sandbox) -> None:
    for number in range(COMMANDS):
        if number % 100 == 99:
            with pytest.raises(ExecFailed):
                box.exec(["no-such-command"])
        else:
            assert box.exec(["true"], stdin=b"x" if number % 7 == 0 else None).ok
    gc.collect()


def run_boxes() -> None:
    for number in range(300):
        if number % 3:
            assert run(["true"]).ok
        else:
            with Sandbox() as box:
                assert box.exec(["true"]).ok
    gc.collect()


def grows(pid: int, work: Callable[[], None], allowed_kib: int) -> bool:
    """Whether a process has grown by more each time. Once says little of one that holds much else: what the kernel had
    taken from it may come back."""
    for _ in range(3):
        before = resident_kib(pid)
        work()
        if few_more(before, resident_kib(pid), allowed_kib):
            return False
    return True


def test_two_thousand_commands_in_one_box() -> None:
    with Sandbox() as box:
        for _ in range(50):
            box.exec(["true"])
        stem = box._box.pid
        gc.collect()
        spawner = next(iter(spawner_pids()))
        pids = (os.getpid(), spawner)
        before = {pid: len(open_descriptors(pid)) for pid in pids}
        memory = {pid: resident_kib(pid) for pid in (spawner, stem)} if os.geteuid() == 0 else {}
        held = len(open_descriptors(stem)) if os.geteuid() == 0 else 0
        assert not grows(os.getpid(), lambda: run_commands(box), 2048), "the caller grows"
        assert {pid: len(open_descriptors(pid)) for pid in pids} == before
        assert eventually(lambda: not zombies()), zombies()
        if os.geteuid() == 0:
            # A plain user may not look into a process that is not dumpable.
            assert len(open_descriptors(stem)) == held, open_descriptors(stem)
            assert few_more(memory[stem], resident_kib(stem), 64), "the stem grows"
            assert few_more(memory[spawner], resident_kib(spawner), 64), "the spawner grows"
        names = [one.name for one in descendants(box._box.pid)]
        assert names == [], "nothing is left in the box"


def test_three_hundred_boxes_one_after_the_other() -> None:
    for _ in range(20):
        run(["true"])
    gc.collect()
    spawner = next(iter(spawner_pids()))
    pids = (os.getpid(), spawner)
    before = {pid: len(open_descriptors(pid)) for pid in pids}
    size = resident_kib(spawner) if os.geteuid() == 0 else 0
    assert not grows(os.getpid(), run_boxes, 1024), "the caller grows"
    assert eventually(lambda: {pid: len(open_descriptors(pid)) for pid in pids} == before), before
    assert eventually(lambda: not zombies()), zombies()
    if os.geteuid() == 0:
        assert few_more(size, resident_kib(spawner), 1024), "the spawner grows"


def test_mounts_of_many_owners_leave_nothing_in_the_spawner(tmp_path_factory: pytest.TempPathFactory) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: only root's mounts are idmapped")
    folder = tmp_path_factory.mktemp("owned")
    run(["true"], mounts=[(folder, "/work", "rw")])
    spawner = next(iter(spawner_pids()))
    before = len(open_descriptors(spawner))
    for owner in range(3000, 3060):
        os.chown(folder, owner, owner)
        assert run(["touch", "/work/x"], mounts=[(folder, "/work", "rw")]).ok
        (folder / "x").unlink()
    assert few_more(before, len(open_descriptors(spawner)), 32), "a namespace is kept for every owner for ever"
