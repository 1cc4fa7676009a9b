"""What callers do that a storm kills: one command without end in a box, in every way that there is to start it.

Once it runs there is a file of the name `sign` in the folder that is mounted as /work.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from immure import PIPE, AsyncSandbox, ImmureError, Pool, Sandbox, run


def workload(sign: Path) -> list[str]:
    """Says that it runs, leaves a child outside of its group, and goes on."""
    return ["sh", "-c", "setsid sleep 1000 & echo > /work/$0; while :; do :; done", sign.name]


def by_run(keywords: dict[str, Any], sign: Path) -> None:
    run(workload(sign), **keywords)


def by_exec(keywords: dict[str, Any], sign: Path) -> None:
    """With files written beside it."""
    with Sandbox(**keywords) as box:
        threading.Thread(target=write_on, args=(box,), daemon=True).start()
        box.exec(workload(sign))


def write_on(box: Sandbox) -> None:
    try:
        while True:
            box.files.write("/tmp/a", bytes(1 << 20))
            box.files.read("/tmp/a")
    except ImmureError:
        pass


def by_start(keywords: dict[str, Any], sign: Path) -> None:
    with Sandbox(**keywords) as box, box.start(workload(sign), stdin=PIPE) as process:
        assert process.stdout.read() == b""
        process.wait()


def at_a_terminal(keywords: dict[str, Any], sign: Path) -> None:
    with Sandbox(**keywords) as box, box.start(workload(sign), pty=True) as process:
        process.wait()


def from_a_pool(keywords: dict[str, Any], sign: Path) -> None:
    with Pool(size=2, **keywords) as pool, pool.claim() as box:
        box.start(workload(sign)).wait()


def awaited(keywords: dict[str, Any], sign: Path) -> None:
    async def main() -> None:
        async with AsyncSandbox(**keywords) as box:
            await asyncio.gather(box.exec(workload(sign)), box.exec(["sleep", "1000"]))

    asyncio.run(main())


KINDS = (by_run, by_exec, by_start, at_a_terminal, from_a_pool, awaited)
