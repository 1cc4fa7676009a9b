"""What runs below a process of this host, from proc(5)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

_Children = Callable[[int], list[int]]
_TICK_MS = 1000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTED = "/proc/thread-self/children"
_STOPPED = (b"T", b"t", b"Z", b"X", b"")


class Used(NamedTuple):
    """What one process uses: CPU time with that of children that it has waited for, memory that is resident."""

    threads: int
    cpu_ms: int
    resident_bytes: int


def below(pid: int) -> list[int]:
    """The processes that descend from `pid`, without itself. Those that come or go meanwhile may be missing."""
    return _below(pid, _children())


def moving(pid: int) -> int:
    """How many processes that descend from `pid` run: that are neither stopped nor ended.

    One that waits for a disk can't be stopped before that has answered. One that waits for a stopped child's execve,
    after vfork, looks the same, and does nothing until the child does.
    """
    children = _children()
    return sum(not _at_rest(one, children) for one in _below(pid, children))


def _below(pid: int, children: _Children) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        new = children(waiting.pop())
        found += new
        waiting += new
    return found


def _at_rest(pid: int, children: _Children) -> bool:
    state = _state(pid)
    return state in _STOPPED or (state == b"D" and any(_state(child) in _STOPPED for child in children(pid)))


def _state(pid: int) -> bytes:
    """One letter, as proc(5) has it; nothing where there is no such process."""
    return b"".join(_stat(pid)[:1])


def _children() -> _Children:
    """What tells the children of a process. Not every kernel lists them (CONFIG_PROC_CHILDREN), but each says of every
    process whose child it is.
    """
    if os.path.exists(_LISTED):  # noqa: PTH110
        return _listed
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        fields = _stat(int(name)) if name.isdigit() else []
        if len(fields) > 1:
            found.setdefault(int(fields[1]), []).append(int(name))
    return lambda pid: found.get(pid, [])


def _listed(pid: int) -> list[int]:
    folder = f"/proc/{pid}/task"
    try:
        threads = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        found += [int(word) for word in _read(f"{folder}/{thread}/children").split()]
    return found


def _stat(pid: int) -> list[bytes]:
    """What comes after the name, which is in parentheses and may hold anything."""
    return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()


def used(pid: int) -> Used | None:
    """What a process uses; None where it is gone or only waits to be reaped."""
    fields = _stat(pid)
    if len(fields) < 22 or fields[0] in (b"Z", b"X"):
        return None
    ticks = sum(int(field) for field in fields[11:15])
    return Used(int(fields[17]), ticks * _TICK_MS, int(fields[21]) * _PAGE)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall() or b""
    except OSError:
        return b""
