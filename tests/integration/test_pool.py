"""Pools: boxes that are ready, each for one user alone, as many as were asked for and no more."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time

import pytest

from immure import AsyncPool, BoxLost, Pool, Sandbox, SpecError

from .processes import descendants, eventually, running

pytestmark = pytest.mark.rootless


def boxes() -> int:
    """Processes that are a box's first; the next one of a spawner, that nobody has asked for, is none of the pool's."""
    spawners = {one.pid for one in descendants() if one.parent == os.getpid()}
    return sum(one.parent in spawners and one.name != "immure-spare" for one in descendants())


def full(pool: Pool) -> bool:
    return eventually(lambda: pool.stats().ready == pool.size)


def test_each_box_has_one_user() -> None:
    seen: set[str] = set()
    with Pool(size=2) as pool:
        for _ in range(8):
            with pool.claim() as box:
                assert box.exec(["ls", "-A", "/tmp"]).stdout == b""
                box.files.write("/tmp/mine", b"x")
                assert box.level.awarded == "L2"
                seen.add(box.id)
                time.sleep(0.01)
            with pytest.raises(BoxLost):
                box.exec(["true"])
            with pytest.raises(BoxLost):
                box.files.read("/tmp/mine")
    assert len(seen) == 8


def test_it_holds_as_many_as_were_asked_for() -> None:
    with Pool(size=3) as pool:
        assert full(pool)
        time.sleep(0.1)
        assert boxes() == 3
        claimed = [pool.claim() for _ in range(5)]
        assert len({box.evidence().host.namespaces["net"] for box in claimed}) == 5
        assert full(pool)
        assert boxes() == 8
        for box in claimed:
            box.close()
        assert eventually(lambda: boxes() == 3)
        stats = pool.stats()
        assert (stats.claimed, stats.ready) == (5, 3)
        assert stats.made == 8
    assert boxes() == 0


def test_a_claim_from_an_empty_pool_makes_a_box() -> None:
    with Pool(size=1) as pool:
        held = [pool.claim() for _ in range(6)]
        assert len({box.id for box in held}) == 6
        assert all(box.exec(["true"]).ok for box in held)
        assert pool.stats().missed > 0


def test_many_threads_get_boxes_of_their_own() -> None:
    found: list[tuple[str, bytes]] = []

    def work(pool: Pool) -> None:
        for _ in range(5):
            with pool.claim() as box:
                found.append((box.id, bytes(box.exec(["sh", "-c", "ls -A /tmp; touch /tmp/x"]).stdout)))

    with Pool(size=4) as pool:
        threads = [threading.Thread(target=work, args=(pool,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({one for one, _ in found}) == 30
    assert {listing for _, listing in found} == {b""}


def test_dead_boxes_are_not_handed_out() -> None:
    with Pool(size=3) as pool:
        assert full(pool)
        for one in descendants():
            if one.parent == os.getpid():
                os.kill(one.pid, signal.SIGKILL)
        assert eventually(lambda: boxes() == 0)
        with pool.claim() as box:
            assert box.exec(["true"]).ok
        assert pool.stats().dead == 3
        assert full(pool)


def test_closing_ends_those_that_are_in_use() -> None:
    pool = Pool(size=2)
    box = pool.claim()
    process = box.start(["sleep", "300"])
    pid = box._box.pid
    pool.close()
    pool.close()
    assert not running(pid)
    with pytest.raises(BoxLost):
        process.wait()
    with pytest.raises(BoxLost):
        pool.claim()
    box.close()
    assert boxes() == 0


def test_a_box_that_its_user_forgets_ends() -> None:
    with Pool(size=1) as pool:
        assert full(pool)
        box = pool.claim()
        pid = box._box.pid
        del box
        gc.collect()
        assert eventually(lambda: not running(pid))


def test_what_is_wrong_is_told_at_once() -> None:
    for size in (0, -1, 1001):
        with pytest.raises(SpecError):
            Pool(size=size)
    with pytest.raises(SpecError):
        Pool(mounts=[("/no/such/folder", "/x", "ro")])
    with pytest.raises(SpecError):
        Pool(no_such_keyword=1)


def test_what_goes_wrong_while_nobody_asks_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is: a pool that stops filling up, and says nothing, is none."""
    with Pool(size=2) as pool:
        assert full(pool)
        make, failures = pool._make, [OSError("no descriptors"), BoxLost("gone")]
        monkeypatch.setattr(pool, "_make", lambda: make() if not failures else fail(failures.pop()))
        held = [pool.claim() for _ in range(2)]
        assert full(pool)
        assert not failures
        assert all(box.exec(["true"]).ok for box in held)


def fail(error: Exception) -> object:
    raise error


def test_a_forked_child_has_no_part_in_it() -> None:
    with Pool(size=1) as pool:
        child = os.fork()
        if child == 0:
            try:
                pool.claim()
            except BoxLost:
                pool.close()
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        with pool.claim() as box:
            assert box.exec(["true"]).ok


def test_a_box_beside_it_is_not_touched() -> None:
    with Sandbox() as own:
        with Pool(size=2) as pool:
            pool.claim().close()
        assert own.exec(["true"]).ok


def test_it_is_awaited() -> None:
    async def main() -> None:
        async with AsyncPool(size=3) as pool:

            async def one(number: int) -> tuple[str, bytes]:
                async with await pool.claim() as box:
                    listing = (await box.exec(["ls", "-A", "/tmp"])).stdout
                    await box.files.write("/tmp/x", b"x")
                    result = await box.exec(["echo", str(number)])
                    assert result.stdout == b"%d\n" % number
                with pytest.raises(BoxLost):
                    await box.exec(["true"])
                return box.id, bytes(listing)

            found = await asyncio.gather(*(one(number) for number in range(12)))
            assert len({identity for identity, _ in found}) == 12
            assert {listing for _, listing in found} == {b""}
            assert pool.stats().claimed == 12
        with pytest.raises(BoxLost):
            await pool.claim()

    asyncio.run(main())
    assert boxes() == 0
