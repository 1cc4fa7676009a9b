"""`python -m bench.ends [N]`: how long after each kind of end a box and all that it started are gone, by pidfd."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from bench.report import describe_host
from bench.stats import summarize
from immure import AsyncSandbox, Sandbox
from immure.host.tree import below

ROUNDS = 50
#: Wanted, of half of all ends.
MOST_MS = 100.0
WORKLOAD = ["sh", "-c", "setsid sleep 300 & exec sleep 300"]

#: A process with a box, which ends in one of these manners when it is told to.
PROGRAM = """
import os, signal, sys, time
from immure import Sandbox
from immure.host.tree import below
box = Sandbox()
process = box.start(["sh", "-c", "setsid sleep 300 & exec sleep 300"])
def names():
    try:
        return sorted(open(f"/proc/{pid}/comm").read().strip() for pid in below(os.getpid()))
    except OSError:
        return []
while names() != ["immure-init", "immure-spawner", "sleep", "sleep"]:
    time.sleep(0.001)
print(*below(os.getpid()), flush=True)
input()
"""
PROCESS_ENDS = {
    "the last line": "",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise ZeroDivisionError",
    "os._exit": "os._exit(3)",
    # Whoever started us may have had it ignored.
    "Ctrl-C": (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(300)"
    ),
    "kill -9": "os.kill(os.getpid(), signal.SIGKILL)",
}


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    ends: dict[str, Callable[[], float]] = {
        "close": _by_close,
        "an exception in with": _by_exception,
        "dropped": _by_collection,
        "a cancelled task": _by_cancelling,
        **{f"the process: {name}": _process_end(how) for name, how in PROCESS_ENDS.items()},
    }
    Sandbox().close()
    samples: dict[str, list[float]] = {name: [] for name in ends}
    for _ in range(rounds):
        for name, work in ends.items():
            samples[name].append(work() * 1000)
    summaries = {name: summarize(taken) for name, taken in samples.items()}
    shown = {name: {"p50_ms": round(one.p50, 2), "p99_ms": round(one.p99, 2)} for name, one in summaries.items()}
    print(json.dumps({"host": describe_host(), "rounds": rounds, "gone_after": shown}, indent=1, default=str))
    return 0 if all(one.p50 <= MOST_MS for one in summaries.values()) else 1


def _busy_box() -> tuple[Sandbox, list[int]]:
    box = Sandbox()
    # Nobody waits for it; its end is the box's.
    process = box.start(WORKLOAD)
    while _names(box._box.pid) != ["sleep", "sleep"]:
        pass
    box._kept = process  # type: ignore[attr-defined]
    return box, _held([box._box.pid, *below(box._box.pid)])


def _names(root: int) -> list[str]:
    """Of what runs below a process; nothing where one of them has just ended."""
    try:
        return sorted(Path(f"/proc/{pid}/comm").read_text().strip() for pid in below(root))
    except OSError:
        return []


def _held(pids: list[int]) -> list[int]:
    return [os.pidfd_open(pid) for pid in pids]


def _gone_after(began: float, held: list[int]) -> float:
    """Seconds from `began` until every one of these processes has ended."""
    poll = select.poll()
    for fd in held:
        poll.register(fd, select.POLLIN)
    waiting = len(held)
    while waiting:
        for fd, _ in poll.poll():
            poll.unregister(fd)
            waiting -= 1
    taken = perf_counter() - began
    for fd in held:
        os.close(fd)
    return taken


def _by_close() -> float:
    box, held = _busy_box()
    began = perf_counter()
    box.close()
    return _gone_after(began, held)


def _by_exception() -> float:
    box, held = _busy_box()
    began = 0.0
    try:
        with box:
            began = perf_counter()
            raise ZeroDivisionError
    except ZeroDivisionError:
        return _gone_after(began, held)


def _by_collection() -> float:
    box, held = _busy_box()
    began = perf_counter()
    del box
    gc.collect()
    return _gone_after(began, held)


def _by_cancelling() -> float:
    """The task's command, and the box that it was about to leave."""

    async def session(running: asyncio.Future[list[int]]) -> None:
        async with AsyncSandbox() as box:
            asking = asyncio.ensure_future(box.exec(WORKLOAD))
            while _names(box._box.pid) != ["sleep", "sleep"]:
                await asyncio.sleep(0)
            running.set_result(_held([box._box.pid, *below(box._box.pid)]))
            await asking

    async def measured() -> float:
        running: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(session(running))
        held = await running
        began = perf_counter()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return _gone_after(began, held)

    return asyncio.run(measured())


def _process_end(how: str) -> Callable[[], float]:
    """From the moment that it is told to end: its own way to its end is part of it."""

    def work() -> float:
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM + how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            held = _held([int(pid) for pid in process.stdout.readline().split()])
            began = perf_counter()
            process.stdin.write(b"\n")
            process.stdin.flush()
            return _gone_after(began, held)

    return work


if __name__ == "__main__":
    sys.exit(main())
