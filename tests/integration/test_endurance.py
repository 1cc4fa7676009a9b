"""Thousands of commands leave no trace in the caller, the spawner, or the box."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from immure import ExecFailed, Sandbox, run
from immure.engine.aio_pool import AsyncPooledSandbox
from immure.runtimes.process.pipes import make_ahead

from .processes import descendants, eventually, open_descriptors, resident_kib, spawner_pids

pytestmark = [pytest.mark.rootless, pytest.mark.slow, pytest.mark.timeout(180)]

#: A plain user's boxes are no others, so that less has to do.
COMMANDS = 10_000 if os.geteuid() == 0 else 2_000
AT_ONCE = 200


def zombies() -> list[str]:
    """In the boxes and below the spawners."""
    below = [one for pid in spawner_pids() for one in descendants(pid)]
    return [f"{one.pid} {one.name}" for one in below if one.state == "Z"]


def few_more(before: int, after: int, allowed: int) -> bool:
    return after <= before + allowed


def run_commands(box: Sandbox, count: int) -> None:
    for number in range(count):
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


@contextmanager
def nothing_grows(box: Sandbox) -> Iterator[None]:
    """Neither the caller's descriptors, nor those and the memory of the spawner and the box's first process."""
    gc.collect()
    stem, spawner = box._box.pid, box._box._spawner.pid
    # A plain user may not look into a process that is not dumpable.
    seen = (stem, spawner) if os.geteuid() == 0 else ()
    # Both times: pipes ahead are not kept where their numbers are high, as with many commands at once.
    make_ahead()
    before = {pid: len(open_descriptors(pid)) for pid in {os.getpid(), spawner, *seen}}
    memory = {pid: resident_kib(pid) for pid in seen}
    yield
    gc.collect()
    assert eventually(lambda: not zombies()), zombies()
    make_ahead()
    assert {pid: len(open_descriptors(pid)) for pid in before} == before
    for pid in seen:
        assert few_more(memory[pid], resident_kib(pid), 64), "the stem grows" if pid == stem else "the spawner grows"
    assert descendants(stem) == [], "nothing is left in the box"


def test_ten_thousand_commands_in_one_box() -> None:
    with Sandbox() as box:
        run_commands(box, 100)
        with nothing_grows(box):
            # Each part more than the last would be a leak; see `grows`.
            assert not grows(os.getpid(), lambda: run_commands(box, COMMANDS // 3), 1024), "the caller grows"
            run_commands(box, COMMANDS // 3 * 2)


#: Waits at a gate that opens for all of them, and answers.
WAIT = ["sh", "-c", "read line < /tmp/gate; echo $0"]
OPEN = ["sh", "-c", ": > /tmp/gate"]


def from_threads(box: Sandbox) -> list[bytes]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        commands = [pool.submit(box.exec, [*WAIT, str(number)]) for number in range(AT_ONCE)]
        assert eventually(lambda: box.stats().processes == AT_ONCE, within=30), box.stats()
        assert box.exec(OPEN).ok
        return [one.result(30).stdout for one in commands]


def from_a_loop(box: Sandbox) -> list[bytes]:
    """The same box, as an event loop sees it."""
    awaited = AsyncPooledSandbox(box)  # type: ignore[arg-type]

    async def main() -> list[bytes]:
        commands = [asyncio.create_task(awaited.exec([*WAIT, str(number)])) for number in range(AT_ONCE)]
        async with asyncio.timeout(30):
            while box.stats().processes < AT_ONCE:
                await asyncio.sleep(0.02)
            assert (await awaited.exec(OPEN)).ok
            return [one.stdout for one in await asyncio.gather(*commands)]

    return asyncio.run(main())


@pytest.mark.parametrize("at_once", [from_threads, from_a_loop])
def test_two_hundred_commands_at_once(at_once: Callable[[Sandbox], list[bytes]]) -> None:
    """They all wait at a gate before the first of them may go on, so they are under way at one moment."""
    with Sandbox() as box:
        assert box.exec(["mkfifo", "/tmp/gate"]).ok
        at_once(box)
        with nothing_grows(box):
            assert not grows(os.getpid(), lambda: check_answers(at_once(box)), 1024), "the caller grows"


def check_answers(answers: list[bytes]) -> None:
    assert answers == [b"%d\n" % number for number in range(AT_ONCE)]


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
