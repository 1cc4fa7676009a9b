"""How a command ended, from statuses, counters and the host's own clock and count."""

from __future__ import annotations

import signal
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from hosts import launched, make_spec

from immure.engine.verdict import Verdict, judge_end, memory_peak, oom_kills
from immure.errors import BoxLost, ExecFailed, SetupFailed
from immure.runtimes.process import frames
from immure.runtimes.process.cgroups import count_of
from immure.runtimes.process.course import Exit
from immure.runtimes.process.request import Request
from immure.runtimes.process.stem import Ended

REQUEST = Request(launched(make_spec()), [b"true"])
KILLED = int(signal.SIGKILL)
V2_EVENTS = b"low 0\nhigh 0\nmax 31\noom 1\noom_kill 1\noom_group_kill 0\n"
V1_CONTROL = b"oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"


def exited(status: int, errno: int = 0, step: int = 0) -> Exit:
    return Exit(frames.header(frames.EXITED) + struct.pack("<iiIQQ", status, errno, step, 12_345, 2048))


def ended(counters: dict[str, bytes] | None = None) -> Ended:
    body = struct.pack("<iQQ", KILLED, 7_000, 512)
    for name, value in (counters or {}).items():
        body += bytes([len(name)]) + name.encode() + struct.pack("<I", len(value)) + value
    return Ended(frames.header(frames.ENDED) + body)


def attendance(seen: Exit | None, **changes: Any) -> Any:
    fields = {"exit": seen, "timed_out": False, "flooded": False, "box": SimpleNamespace(failure=None)}
    return SimpleNamespace(**{**fields, **changes})


def judged(seen: Exit | None, end: Ended | None = None, *, oom: int = 0, **changes: Any) -> tuple[Any, ...]:
    verdict = judge_end(REQUEST, attendance(seen, **changes), end, oom=oom)
    return verdict.kind, verdict.code, verdict.signal, verdict.exit_status()


def code(number: int) -> int:
    return number << 8


CORE_DUMPED = 0x80

CASES = {
    "0": (exited(code(0)), {}, ("exited", 0, None, 0)),
    "3": (exited(code(3)), {}, ("exited", 3, None, 3)),
    "255": (exited(code(255)), {}, ("exited", 255, None, 255)),
    "125, the command's own": (exited(code(125)), {}, ("exited", 125, None, 125)),
    "SIGTERM": (exited(signal.SIGTERM), {}, ("signaled", None, 15, 143)),
    "SIGKILL": (exited(KILLED), {}, ("signaled", None, 9, 137)),
    "SIGSEGV with a core": (exited(signal.SIGSEGV | CORE_DUMPED), {}, ("signaled", None, 11, 139)),
    "timeout": (exited(KILLED), {"timed_out": True}, ("timeout", None, 9, 124)),
    "timeout, though it exited": (exited(code(0)), {"timed_out": True}, ("timeout", 0, None, 124)),
    "timeout, and nothing was heard": (None, {"timed_out": True}, ("timeout", None, None, 124)),
    "output": (exited(KILLED), {"flooded": True}, ("output", None, 9, 125)),
    "output, though it exited": (exited(code(0)), {"flooded": True}, ("output", 0, None, 125)),
    "output, and nothing was heard": (None, {"flooded": True}, ("output", None, None, 125)),
    "both": (exited(KILLED), {"timed_out": True, "flooded": True}, ("timeout", None, 9, 124)),
}


@pytest.mark.parametrize("name", CASES)
def test_kinds(name: str) -> None:
    seen, changes, expected = CASES[name]
    assert judged(seen, ended(), **changes) == expected
    assert judged(seen, None, **changes) == expected


@pytest.mark.parametrize("counters", [{"memory.events": V2_EVENTS}, {"memory.oom_control": V1_CONTROL}])
def test_out_of_memory_is_what_the_kernel_counted(counters: dict[str, bytes]) -> None:
    assert judged(exited(KILLED), ended(counters)) == ("oom", None, 9, 137)
    # The whole box may have gone before its stem could say anything.
    assert judged(None, ended(counters)) == ("oom", None, None, 137)
    # A command that got over the death of a child ended by itself.
    assert judged(exited(code(0)), ended(counters)) == ("exited", 0, None, 0)
    # The clock and the count say why the host ended it.
    assert judged(exited(KILLED), ended(counters), timed_out=True)[0] == "timeout"


def test_out_of_memory_in_a_box_that_lives_on() -> None:
    assert judged(exited(KILLED), None, oom=1) == ("oom", None, 9, 137)
    assert judged(exited(KILLED), None, oom=0) == ("signaled", None, 9, 137)
    assert judged(exited(code(3)), None, oom=1) == ("exited", 3, None, 3)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (V2_EVENTS, 1),
        (V1_CONTROL, 2),
        (b"low 0\nhigh 0\nmax 0\noom 5\noom_kill 0\noom_group_kill 3\n", 0),
        (b"oom_kill_disable 0\nunder_oom 1\n", None),
        (b"", None),
        (b"oom_kill\n", None),
    ],
)
def test_kills_are_counted(text: bytes, count: int | None) -> None:
    assert count_of(text) == count
    assert oom_kills({"memory.events": text}) == oom_kills({"memory.oom_control": text}) == (count or 0)
    assert oom_kills({"memory.max": text}) == 0


@pytest.mark.parametrize(
    ("counters", "peak"),
    [
        ({"memory.peak": b"4096\n"}, 4096),
        ({"memory.max_usage_in_bytes": b"8192\n"}, 8192),
        ({"memory.peak": b"max\n"}, 512 * 1024),
        ({}, 512 * 1024),
    ],
)
def test_the_peak_is_the_cgroups_or_the_largest_processes(counters: dict[str, bytes], peak: int) -> None:
    assert memory_peak(ended(counters)) == peak


def test_a_command_that_never_started_raises() -> None:
    step = frames.STEPS.index("exec")
    with pytest.raises(ExecFailed) as caught:
        judged(exited(0, errno=2, step=step), ended())
    assert caught.value.exit_status == 127
    with pytest.raises(ExecFailed):
        judged(exited(0, errno=13, step=step), ended(), timed_out=True)


def test_a_box_that_fell_raises_what_it_said_or_that_it_is_lost() -> None:
    with pytest.raises(BoxLost, match="under the command"):
        judged(None, ended())
    failure = SetupFailed("no", step="mount", errno=1)
    with pytest.raises(SetupFailed) as caught:
        judged(None, ended(), box=SimpleNamespace(failure=failure))
    assert caught.value is failure


@pytest.mark.parametrize("number", [1, 2, 9, 15, 64])
def test_a_signal_is_128_and_its_number(number: int) -> None:
    assert Verdict("signaled", None, number).exit_status() == 128 + number


def test_what_a_message_tells() -> None:
    seen = exited(code(3))
    assert (seen.status, seen.errno, seen.step, seen.cpu_ms, seen.memory_peak_bytes) == (768, 0, "", 12, 2048 * 1024)
    end = ended({"memory.peak": b"1"})
    assert (end.status, end.cpu_ms, end.memory_peak_bytes, end.counters) == (9, 7, 512 * 1024, {"memory.peak": b"1"})


def test_a_step_that_nobody_knows_is_none_of_those_that_are_known() -> None:
    assert exited(0, errno=1, step=10_000).step not in frames.STEPS


def test_an_exit_has_what_was_said() -> None:
    told = struct.pack("<iiIQQ", -1, 13, 10, (1 << 40) + 999, (1 << 33) + 1)
    seen = Exit(frames.header(frames.EXITED, frames.DRAINING) + told)
    assert (seen.status, seen.errno, seen.step, seen.draining) == (-1, 13, "seccomp", True)
    assert (seen.cpu_ms, seen.memory_peak_bytes) == (((1 << 40) + 999) // 1000, ((1 << 33) + 1) * 1024)
    assert Exit(frames.header(frames.EXITED) + struct.pack("<iiIQQ", 0, 1, 0xFFFF_FFFF, 0, 0)).step not in frames.STEPS


@pytest.mark.parametrize("length", [0, 8, 35, 37, 40, 256])
def test_what_is_no_exit_is_refused(length: int) -> None:
    with pytest.raises(BoxLost, match="unreadable"):
        Exit(bytes(length))
