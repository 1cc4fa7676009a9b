"""What events of a Sentry say was refused."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.engine import denials
from immure.engine.denials import Denials, denial_points
from immure.engine.result import Denial
from immure.policy.seccomp.abi import find_abi
from immure.policy.seccomp.syscalls import numbers
from immure.runtimes.gvisor.trace import Offer, Point, TraceEvent, TraceProcess
from immure.runtimes.gvisor.trace.addresses import address_text
from immure.runtimes.gvisor.trace.wire import Value

TABLE = numbers(find_abi(os.uname().machine))
MKDIR = f"syscall/sysno/{TABLE['mkdirat']}/exit"
KILL = f"syscall/sysno/{TABLE['kill']}/exit"
SOMEWHERE = b"\x02\0\0\x50\xc0\0\2\1" + bytes(8)


def event(point: str, denied: int | None, group: int = 7, **fields: Value) -> TraceEvent:
    return TraceEvent(point, 0, TraceProcess(group_id=group), dict(fields), denied=denied)


def found(*events: TraceEvent) -> tuple[Denial, ...]:
    collected = Denials()
    for one in events:
        collected.take(one)
    return collected.found()


@pytest.mark.parametrize(
    ("seen", "code", "call", "target", "rule"),
    [
        (event("syscall/openat/exit", errno.EACCES, pathname="/a"), "IMM-FS-OPENAT", "openat", "/a", "EACCES: files"),
        (
            event("syscall/openat/exit", errno.EROFS, pathname="/a"),
            "IMM-FS-OPENAT",
            "openat",
            "/a",
            "EROFS: files: mounted",
        ),
        (event(MKDIR, errno.EROFS, arg1=1), "IMM-FS-MKDIRAT", "mkdirat", "", "EROFS: files: mounted"),
        (
            event("syscall/connect/exit", errno.ENETUNREACH, fd=3, address=SOMEWHERE),
            "IMM-NET-CONNECT",
            "connect",
            "192.0.2.1:80",
            "ENETUNREACH: network.mode: none",
        ),
        (event(KILL, errno.EPERM, arg1=1), "IMM-SYS-KILL", "kill", "", "EPERM: processes of other users"),
        (event("syscall/setuid/exit", errno.EPERM, id=0), "IMM-SYS-SETUID", "setuid", "0", "EPERM: processes.cap"),
    ],
)
def test_one_says_what_was_refused_and_what_to_do(
    seen: TraceEvent, code: str, call: str, target: str, rule: str
) -> None:
    (one,) = found(seen)
    assert (one.code, one.layer, one.call, one.target, one.count) == (code, "sentry", call, target, 1)
    assert one.rule.startswith(rule)
    assert one.fix


@pytest.mark.parametrize(
    "seen",
    [
        event("syscall/openat/exit", None, pathname="/a"),
        event("syscall/openat/exit", errno.ENOENT, pathname="/a"),
        event("syscall/openat/exit", errno.EACCES, group=1, pathname="/a"),
        event("syscall/openat/enter", errno.EACCES, pathname="/a"),
        event("syscall/read/exit", errno.EACCES),
        event("syscall/sysno/99999/exit", errno.EPERM),
        event("syscall/sysno/x/exit", errno.EPERM),
        event("trace/dropped", None, count=3),
        event("sentry/execve", errno.EACCES),
    ],
    ids=lambda seen: seen.point,
)
def test_what_is_none(seen: TraceEvent) -> None:
    """What there is not, what our own first process was refused, and points that are no exits of a call."""
    assert found(seen) == ()


def test_the_same_are_counted_and_in_order() -> None:
    again = event("syscall/openat/exit", errno.EACCES, pathname="/b")
    first = event("syscall/openat/exit", errno.EACCES, pathname="/a")
    assert [(one.target, one.count) for one in found(first, again, again, first, again)] == [("/a", 2), ("/b", 3)]


def test_there_is_an_end_to_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denials, "MOST", 3)
    many = [event("syscall/openat/exit", errno.EACCES, pathname=f"/{number}") for number in (0, 1, 2, 3, 4, 0)]
    assert [(one.target, one.count) for one in found(*many)] == [("/0", 2), ("/1", 1), ("/2", 1)]


def test_points_are_those_that_this_gvisor_has() -> None:
    offer = Offer(
        {name: Point(name) for name in ("syscall/openat/exit", "syscall/openat/enter", MKDIR, "sentry/clone")}
    )
    assert denial_points(offer) == ("syscall/openat/exit", MKDIR)


@given(st.binary(max_size=200))
def test_any_address_is_some_text(value: bytes) -> None:
    assert isinstance(address_text(value), str)
