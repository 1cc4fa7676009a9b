"""How long a command that was told to end may take, before all of its box ends."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from immure.runtimes.process import course
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.spawner import pair


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("runtime", "grace_s"), [("process", 5), ("gvisor", 5), ("qemu", 30), ("firecracker", 30)])
def test_a_machine_has_more_of_it(runtime: str, grace_s: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, killed = Clock(), []
    monkeypatch.setattr(course, "monotonic", clock)
    box: Any = SimpleNamespace(kill=lambda: killed.append(clock.now))
    request: Any = SimpleNamespace(launch=SimpleNamespace(runtime=runtime), timeout_s=2, output_bytes=None)
    ours, theirs = pair()
    with closing(ours), closing(theirs):
        one = Attendance(box, ours, Stdio((None, 1, 2), [], []), request)
        clock.now += 2
        one.check_time()
        assert one.timed_out and killed == []
        clock.now += grace_s - 0.1
        one.check_time()
        assert killed == []
        clock.now += 0.2
        one.check_time()
        assert killed == [clock.now]
