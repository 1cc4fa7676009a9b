"""What only an event loop can do to a box: cancel, close, be another loop. Whatever it is, nothing is left."""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from immure import PIPE, AsyncSandbox, BoxError, BoxLost, Sandbox, SpecError
from immure.engine.command import prepare_call
from immure.engine.spawners import close_all
from immure.plan.launch import Launch

from .processes import descendants, eventually, running

pytestmark = pytest.mark.rootless


def loops() -> list[Callable[[Coroutine[Any, Any, Any]], Any]]:
    try:
        return [asyncio.run, importlib.import_module("uvloop").run]
    except ImportError:
        return [asyncio.run]


def commands(pid: int) -> list[str]:
    return [one.name for one in descendants(pid)]


@pytest.mark.root
def test_two_kinds_of_loops_are_tried() -> None:
    assert len(loops()) == 2


@pytest.mark.parametrize("run", loops())
def test_a_loop_goes_on_while_commands_run(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with AsyncSandbox() as box:
            tasks = [asyncio.create_task(box.exec(["sleep", "300"])) for _ in range(20)]
            # The loop comes here at all, and they all run at once.
            while box.stats().processes < 20:
                await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended)
            assert [one.text() for one in box.logs().entries if one.stream == "ended"] == ["closed"] * 20

    run(main())


@pytest.mark.parametrize("run", loops())
def test_a_cancelled_task_s_command_is_gone(run: Callable[..., Any]) -> None:
    async def main() -> None:
        async with AsyncSandbox() as box:
            task = asyncio.create_task(box.exec(["sh", "-c", "sleep 300 & sleep 300"]))
            pid = box._box.pid
            while commands(pid).count("sleep") < 2:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while commands(pid):
                await asyncio.sleep(0.005)
            # The box itself goes on.
            assert (await box.exec(["true"])).ok

    run(main())


def test_a_box_that_is_cancelled_while_it_is_made_leaves_nothing() -> None:
    async def main() -> None:
        await (await AsyncSandbox()).close()
        for moment_ms in (0, 0.1, 0.3, 0.6, 1, 1.5, 2, 3):
            for _ in range(5):
                task = asyncio.ensure_future(AsyncSandbox().open())
                await asyncio.sleep(moment_ms / 1000)
                if task.cancel():
                    with pytest.raises(asyncio.CancelledError):
                        await task
                else:
                    await task.result().close()

    asyncio.run(main())
    close_all()


def test_a_timeout_of_the_caller_s_own() -> None:
    async def main() -> None:
        async with AsyncSandbox() as box:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await box.exec(["sleep", "300"])
            process = await box.start(["sleep", "300"])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await process.wait()
            # Who stops waiting has not ended it.
            assert commands(box._box.pid) == ["sleep"]
            process.kill()
            assert (await process.wait()).exit.signal == 9

    asyncio.run(main())


def test_an_error_within_ends_the_box() -> None:
    async def main() -> int:
        pid = 0
        with pytest.raises(ZeroDivisionError):
            async with AsyncSandbox() as box:
                pid = box._box.pid
                await box.start(["sleep", "300"])
                raise ZeroDivisionError
        return pid

    pid = asyncio.run(main())
    assert pid
    assert not running(pid)


def test_a_loop_that_ends_around_an_open_box() -> None:
    async def main() -> int:
        box = await AsyncSandbox()
        process = await box.start(["cat"], stdin=PIPE)
        assert process.stdin is not None
        return box._box.pid

    pid = asyncio.run(main())
    assert eventually(lambda: not running(pid))


def test_a_box_works_in_the_loop_after() -> None:
    box = asyncio.run(AsyncSandbox().open())
    assert asyncio.run(box.exec(["echo", "again"])).stdout == b"again\n"
    asyncio.run(box.close())
    asyncio.run(box.close())
    with pytest.raises(BoxLost):
        asyncio.run(box.exec(["true"]))


def test_the_blocking_face_works_inside_of_a_running_loop() -> None:
    """As in a notebook."""

    async def main() -> bytes:
        with Sandbox() as box:
            return box.exec(["echo", "cell"]).stdout

    assert asyncio.run(main()) == b"cell\n"


def test_a_forked_child_can_not_use_it() -> None:
    async def main() -> None:
        async with AsyncSandbox() as box:
            child = os.fork()
            if child == 0:
                try:
                    box._check_usable()
                except BoxLost:
                    os._exit(7)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert (await box.exec(["true"])).ok

    asyncio.run(main())


def test_several_tasks_may_read_write_and_close_at_once() -> None:
    async def main() -> None:
        box = await AsyncSandbox()
        process = await box.start(["cat"], stdin=PIPE)
        assert process.stdin is not None
        sizes = [1 << 18] * 8

        async def feed() -> None:
            assert process.stdin is not None
            await asyncio.gather(*(process.stdin.write(bytes([number]) * size) for number, size in enumerate(sizes)))
            process.stdin.close()

        async def drain() -> bytes:
            parts = []
            while chunk := await process.stdout.read(1 << 16):
                parts.append(chunk)
            return b"".join(parts)

        _, *parts = await asyncio.gather(feed(), drain(), drain(), drain())
        assert sorted(b"".join(parts)) == sorted(b"".join(bytes([n]) * size for n, size in enumerate(sizes)))
        assert (await process.wait()).exit.code == 0
        await asyncio.gather(*(box.close() for _ in range(5)))

    asyncio.run(main())


def test_a_loop_goes_on_while_a_box_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first machine of its kind is packed and booted then, which takes seconds."""
    goes_on = threading.Event()

    def slowly(*call: Any) -> Launch:
        # Only the loop sets it.
        assert goes_on.wait(10)
        return prepare_call(*call)

    monkeypatch.setattr("immure.engine.aio.prepare_call", slowly)

    async def main() -> None:
        asyncio.get_running_loop().call_later(0.1, goes_on.set)
        async with AsyncSandbox() as box:
            assert (await box.exec(["true"])).ok

    asyncio.run(main())


def test_what_is_wrong_with_a_box_is_told_when_it_is_made() -> None:
    with pytest.raises(SpecError, match="memory_mib"):
        asyncio.run(AsyncSandbox(memory_mib=-1).open())


def test_a_box_that_is_not_made_yet_says_so() -> None:
    with pytest.raises(BoxError, match="not made yet"):
        asyncio.run(AsyncSandbox().exec(["true"]))
