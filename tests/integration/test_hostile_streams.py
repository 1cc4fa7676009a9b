"""What a command can do to its standard streams, and what its caller sees of that: no more than a deadline."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest

from immure import AsyncSandbox, Sandbox

from .command_line import CommandLine, python
from .processes import eventually

pytestmark = pytest.mark.rootless

#: Writes, and takes back what nobody has read yet; at last it does so once more, and is quiet.
THIEF = """
import os, random, time
pipe = os.open('/proc/self/fd/1', os.O_RDONLY | os.O_NONBLOCK)
def steal():
    os.write(1, b'x')
    try:
        os.read(pipe, 1)
    except BlockingIOError:
        return 0
    return 1
stolen = 0
for _ in range(200):
    stolen += steal()
    time.sleep(random.uniform(0, 0.0005))
os.write(2, b'%d' % stolen)
steal()
time.sleep(300)
"""
#: So many that some of them are quick enough.
THIEVES, TIMEOUT_S = 16, 2.0


def check_thieves(results: list[object]) -> None:
    assert [one.exit.kind for one in results] == ["timeout"] * THIEVES  # type: ignore[attr-defined]
    assert sum(int(one.stderr) for one in results) > 0, "the control: something was stolen"  # type: ignore[attr-defined]


def test_a_command_that_takes_its_output_back() -> None:
    with Sandbox() as box:
        results: list[object] = []
        threads = [
            threading.Thread(target=lambda: results.append(box.exec(python(THIEF), timeout_s=TIMEOUT_S)), daemon=True)
            for _ in range(THIEVES)
        ]
        for thread in threads:
            thread.start()
        try:
            assert eventually(lambda: len(results) == THIEVES, within=20), f"{THIEVES - len(results)} wait for ever"
        finally:
            box.close()
        check_thieves(results)


def test_a_command_that_takes_its_output_back_from_a_loop() -> None:
    """The loop goes on for everybody else."""
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    async def main() -> list[object]:
        async with AsyncSandbox() as box:
            ticking = asyncio.create_task(tick())
            results = await asyncio.gather(
                *(box.exec(python(THIEF), timeout_s=TIMEOUT_S) for _ in range(THIEVES // 2)),
                *(watched(box) for _ in range(THIEVES // 2)),
            )
            ticking.cancel()
            return list(results)

    async def watched(box: AsyncSandbox) -> object:
        async with await box.start(python(THIEF), timeout_s=TIMEOUT_S) as process:
            await process.stdout.read()
            return await process.wait()

    check_thieves(asyncio.run(main()))
    assert turns > 20


def test_input_that_is_not_taken_holds_up_no_deadline(cli: CommandLine) -> None:
    """It is pumped, since a socket never enters a box; the second part finds room in the pipe, but not enough."""
    ours, theirs = socket.socketpair()
    with ours, theirs, cli.start("-i", "--timeout", "2", "--", "sleep", "300", stdin=theirs) as process:
        for _ in range(2):
            ours.sendall(bytes(40 << 10))
            time.sleep(0.5)
        assert eventually(lambda: process.poll() is not None, within=20)
        assert process.returncode == 124
