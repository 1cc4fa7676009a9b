"""What callers do that a storm kills, with boxes in virtual machines: commands without end, copies, and migrations.

Nothing of this host is seen within, so that the callers make the file `sign` once the command runs.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from immure import PIPE, AsyncSandbox, Pool, Process, Sandbox, Snapshot

from .callers import write_on

#: Says that it runs, leaves a child outside of its group, and goes on.
WORKLOAD = ["sh", "-c", "setsid sleep 1000 & echo runs; while :; do :; done"]


def signed(process: Process, sign: Path) -> None:
    """Of one that has ended `wait` says why."""
    if process.stdout.readline():
        sign.touch()


def by_exec(keywords: dict[str, Any], sign: Path) -> None:
    """With files written beside it."""
    with Sandbox(**keywords) as box:
        threading.Thread(target=write_on, args=(box,), daemon=True).start()
        sign.touch()
        box.exec(WORKLOAD)


def by_start(keywords: dict[str, Any], sign: Path) -> None:
    with Sandbox(**keywords) as box, box.start(WORKLOAD, stdin=PIPE) as process:
        signed(process, sign)
        process.wait()


def at_a_terminal(keywords: dict[str, Any], sign: Path) -> None:
    with Sandbox(**keywords) as box, box.start(WORKLOAD, pty=True) as process:
        signed(process, sign)
        process.wait()


def from_a_pool(keywords: dict[str, Any], sign: Path) -> None:
    with Pool(size=2, **keywords) as pool, pool.claim() as box:
        process = box.start(WORKLOAD)
        signed(process, sign)
        process.wait()


def awaited(keywords: dict[str, Any], sign: Path) -> None:
    async def main() -> None:
        async with AsyncSandbox(**keywords) as box:
            process = await box.start(WORKLOAD)
            if await process.stdout.readline():
                sign.touch()
            await asyncio.gather(process.wait(), box.exec(["sleep", "1000"]))

    asyncio.run(main())


def forked(keywords: dict[str, Any], sign: Path) -> None:
    with Sandbox(**keywords) as box:
        box.start(WORKLOAD)
        sign.touch()
        while True:
            with box.fork()[0] as fork:
                fork.exec(["true"])


def saved(keywords: dict[str, Any], sign: Path) -> None:
    """And restored from what was saved, whole as it must be."""
    with Sandbox(**keywords) as box:
        sign.touch()
        for number in range(1_000_000):
            place = sign.parent / f"{sign.name}-saved-{number}"
            with box.snapshot() as taken:
                taken.save(place)
            with Snapshot.load(place) as loaded, Sandbox.restore(loaded) as copy:
                copy.exec(["true"])


def migrated(keywords: dict[str, Any], sign: Path) -> None:
    if keywords["runtime"] != "qemu":
        forked(keywords, sign)
        return
    with Sandbox(**keywords) as box:
        box.start(WORKLOAD)
        sign.touch()
        while True:
            box.migrate()


KINDS = (by_exec, by_start, at_a_terminal, from_a_pool, awaited, forked, saved, migrated)
