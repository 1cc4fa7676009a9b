"""The host's side of boxes' cgroups: counters while a box lives, and what a killed spawner left behind.

Standard library only: this is on the hot path of boxes with cgroups.
"""

from __future__ import annotations

import os

from immure.plan.launch import Launch

_PREFIX = "immure-"


def oom_kills(launch: Launch, name: bytes | None) -> int:
    """How often the kernel has killed for memory in the living box whose cgroup has this name."""
    if name is None:
        return 0
    for folder in launch.cgroups:
        for file in ("memory.events", "memory.oom_control"):
            count = count_of(_read(f"{folder}/{name.decode()}/{file}"))
            if count is not None:
                return count
    return 0


def count_of(text: bytes) -> int | None:
    """`oom_kill` of memory.events (v2) or memory.oom_control (v1)."""
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == b"oom_kill":
            return int(words[1])
    return None


def sweep(launch: Launch) -> None:
    """Removes the cgroups of spawners that are gone: named `immure-PID-NUMBER`, and empty since their boxes are too."""
    for folder in launch.cgroups:
        try:
            names = os.listdir(folder)  # noqa: PTH208
        except OSError:
            continue
        for name in names:
            if name.startswith(_PREFIX) and not _lives(name.split("-")[1]):
                try:
                    os.rmdir(f"{folder}/{name}")  # noqa: PTH106
                except OSError:
                    # Not empty yet, or somebody else was quicker; the next sweep finds what is left.
                    continue


def _lives(pid: str) -> bool:
    """One that was killed keeps its name until somebody has waited for it."""
    name, _, rest = _read(f"/proc/{pid}/stat").partition(b"(")[2].rpartition(b") ")
    return name == b"immure-spawner" and not rest.startswith((b"Z", b"X"))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall() or b""
    except OSError:
        return b""
