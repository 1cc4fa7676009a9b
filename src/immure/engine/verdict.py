"""How a command ended, from what the host saw: the kernel's counters, the host's clock, the reader's count.

A box's own word counts only for its exit status. Standard library only: this is on the hot path.
"""

from __future__ import annotations

import os

from immure.errors import BoxLost, ImmureError
from immure.runtimes.process.cgroups import count_of
from immure.runtimes.process.course import Course
from immure.runtimes.process.faults import exec_failed
from immure.runtimes.process.request import Request
from immure.runtimes.process.stem import Ended


class Verdict:
    """`kind` as in the result's `exit`; `code` or `signal` where the command had one."""

    __slots__ = ("code", "kind", "signal")

    def __init__(self, kind: str, code: int | None, signal: int | None) -> None:
        self.kind = kind
        self.code = code
        self.signal = signal

    def exit_status(self) -> int:
        """What the command line ends with."""
        if self.kind == "timeout":
            return 124
        if self.kind == "oom":
            return 137
        if self.kind == "output":
            return 125
        return self.code if self.code is not None else 128 + (self.signal or 0)


def judge_end(request: Request, attendance: Course, ended: Ended | None, *, oom: int = 0) -> Verdict:
    """`oom` counts the kernel's kills for memory in a box that lives on.

    Raises ExecFailed where the command never started, and BoxLost where the box fell under it.
    """
    seen = attendance.exit
    if seen is not None and seen.errno:
        raise exec_failed(request, seen.errno, seen.step)
    code = signal = None
    if seen is not None:
        if os.WIFEXITED(seen.status):
            code = os.WEXITSTATUS(seen.status)
        else:
            signal = os.WTERMSIG(seen.status)
    if attendance.timed_out:
        return Verdict("timeout", code, signal)
    if attendance.flooded:
        return Verdict("output", code, signal)
    # gVisor of 2024 outlives a kill of what a command runs in, and has the command exit.
    fell = code is None or (code != 0 and bool(request.launch.carrier))
    if fell and (oom or (ended is not None and oom_kills(ended.counters))):
        return Verdict("oom", None, signal)
    if seen is None:
        failure: ImmureError | None = attendance.box.failure
        raise failure or BoxLost(
            "the box ended under the command",
            have="its stem was killed",
            hint="in a box without namespaces a command can kill it: use a level or a host with namespaces",
        )
    return Verdict("exited" if code is not None else "signaled", code, signal)


def oom_kills(counters: dict[str, bytes]) -> int:
    """How often the kernel killed for memory in a box that has ended."""
    return sum(count_of(counters.get(name, b"")) or 0 for name in ("memory.events", "memory.oom_control"))


def memory_peak(ended: Ended) -> int:
    """The cgroup's peak where there is one, else the largest process's."""
    for name in ("memory.peak", "memory.max_usage_in_bytes"):
        content = ended.counters.get(name, b"").strip()
        if content.isdigit():
            return int(content)
    return ended.memory_peak_bytes
