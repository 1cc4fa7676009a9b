"""Processes as /proc shows them, and whether those of this test run are gone."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from immure.engine import spawners
from immure.engine.prepare import host_facts

#: How names of our own processes begin.
OURS = ("immure-init", "immure-stem", "immure-spare", "immure-spawner")
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    pid: int
    name: str
    state: str
    parent: int


def adopt_orphans() -> None:
    """What outlives its parent becomes a child of this process, so that nothing of ours can hide."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def every_process() -> Iterator[Process]:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        found = read_process(int(entry.name))
        if found is not None:
            yield found


def read_process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name may hold anything, a parenthesis too.
    head, _, rest = text.rpartition(")")
    state, parent = rest.split()[:2]
    return Process(pid, head.partition("(")[2], state, int(parent))


def descendants(root: int | None = None) -> list[Process]:
    """Everything below `root`, this process where it is None, zombies included."""
    children: dict[int, list[Process]] = {}
    for process in every_process():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [os.getpid() if root is None else root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def has_one_id() -> bool:
    """Whether boxes map a single id here, so that their stem has the user of their commands."""
    return host_facts().ids.kind == "single"


def running(pid: int) -> bool:
    found = read_process(pid)
    return found is not None and found.state not in "ZX"


def spawner_pids() -> set[int]:
    """The spawners that the engine of this process has."""
    return {one.pid for one in spawners._spawners.values() if one.owner == os.getpid()}


def spare_of(spawner: int) -> Process | None:
    """The box that a spawner has begun and nobody has asked for."""
    found = [one for one in every_process() if (one.name, one.parent) == ("immure-spare", spawner) and one.state != "Z"]
    assert len(found) <= 1, found
    return found[0] if found else None


def end_spare(spawner: int) -> None:
    """Ends it, and waits until the spawner knows."""
    found = spare_of(spawner)
    if found is not None:
        os.kill(found.pid, signal.SIGKILL)
        eventually(lambda: read_process(found.pid) is None)


def left_behind() -> list[Process]:
    """Processes of boxes, and spawners that nobody uses. Zombies that were adopted are reaped on the way."""
    known = spawner_pids()
    left: list[Process] = []
    for process in descendants():
        if process.pid in known or not process.name.startswith(OURS):
            continue
        # The next box of a spawner that is used, which is nobody's yet.
        if process.name == "immure-spare" and process.parent in known and process.state != "Z":
            continue
        if process.state == "Z" and process.parent == os.getpid():
            _reap(process.pid)
        else:
            left.append(process)
    # A box's own commands have names of their own, but their box's processes are there as long as they are.
    return left


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def eventually(condition: Callable[[], object], *, within: float = 5.0, step: float = 0.01) -> bool:
    """Whether `condition` comes true in time."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(step)
    return True


def open_descriptors(pid: int) -> dict[int, str]:
    """Descriptors of a process, and what each leads to."""
    found: dict[int, str] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except OSError:
            continue
    return found


def resident_kib(pid: int) -> int:
    """What of a process's memory is its own and in RAM."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    lines = [line.split() for line in text.splitlines()]
    return sum(int(words[1]) for words in lines if words[0] in ("Private_Clean:", "Private_Dirty:"))
