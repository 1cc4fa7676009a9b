"""Events as they are printed: what a box says never reaches a terminal as it is."""

from __future__ import annotations

import json
import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immure.cli.trace_text import is_shown, json_line, summary, text_line
from immure.runtimes.gvisor.trace import (
    DROPPED,
    MALFORMED,
    TraceCounts,
    TraceCredentials,
    TraceEvent,
    TraceProcess,
)
from immure.runtimes.gvisor.trace.events import own_event
from immure.runtimes.gvisor.trace.wire import Value

PROCESS = TraceProcess(7, 0, 6, 0, "box", TraceCredentials(1, 2, 3, 4, 5, 6), "/work", "python3")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def line(fields: dict[str, Value], **rest: int) -> str:
    return text_line(TraceEvent("p", 0, TraceProcess(), fields, **rest))


def test_a_whole_line() -> None:
    fields: dict[str, Value] = {
        "sysno": 257,
        "fd": -100,
        "fd_path": "",
        "pathname": "/etc/a b",
        "flags": 0x42,
        "mode": 0o640,
    }
    event = TraceEvent("syscall/openat/exit", 1_800_000_000_123_456_789, PROCESS, fields, denied=13)
    assert text_line(event) == (
        '08:00:00.123456 6/7 python3 syscall/openat/exit fd=-100 pathname="/etc/a b" flags=0x42 mode=0o640'
        ' cwd="/work" = EACCES'
    )


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "p"),
        ({"argv": ["a", "b c"], "env": []}, 'p argv=["a" "b c"]'),
        ({"terminal": True, "other": False}, "p terminal=yes"),
        ({"hash": b"\x01\xff", "none": None}, "p hash=01ff"),
        ({"new_limit": {"cur": 1, "max": 2}}, "p new_limit={cur=1 max=2}"),
        ({"exit_status": 3 << 8}, "p exit_status=3"),
        ({"exit_status": 9}, "p exit_status=SIGKILL"),
        ({"exit_status": 0x7E}, "p exit_status=signal 126"),
        ({"address": b"\x02\0\x01\xbb\x7f\0\0\1" + bytes(8)}, "p address=127.0.0.1:443"),
        ({"address": b"\x0a\0\x01\xbb" + bytes(4) + bytes(15) + b"\1" + bytes(4)}, "p address=[::1]:443"),
        ({"address": b"\1\0/run/s\0rest"}, 'p address=unix:"/run/s"'),
        ({"address": b"\1\0\0name"}, 'p address=unix:"@name"'),
        ({"address": b"\x02\0\x01"}, "p address=020001"),
        ({"address": b"\x10\0abcd"}, "p address=100061626364"),
        ({"address": b"x"}, "p address=78"),
        ({"pathname": 'a"b\\'}, 'p pathname="a\\"b\\\\"'),
        ({"pathname": "\x1b[2J\n\u202e\udcff"}, 'p pathname="\\x1b[2J\\n\\u202e\\udcff"'),
    ],
)
def test_fields(fields: dict[str, Value], shown: str) -> None:
    assert line(fields) == shown


def test_results() -> None:
    assert line({}, result=0) == "p = 0"
    assert line({}, denied=2) == "p = ENOENT"
    assert line({}, denied=511) == "p = errno 511"


def test_what_the_stream_says_of_itself() -> None:
    assert text_line(own_event(DROPPED, count=12)) == "trace/dropped 12 events before this one"
    assert (
        text_line(own_event(MALFORMED, reason="cut", type=7, bytes=3)) == 'trace/malformed reason="cut" type=7 bytes=3'
    )


def test_which_are_shown() -> None:
    denied = TraceEvent("p", 0, PROCESS, {}, denied=1)
    done = TraceEvent("p", 0, PROCESS, {}, result=1)
    assert is_shown(denied, denied=True)
    assert not is_shown(done, denied=True)
    assert is_shown(done, denied=False)
    assert is_shown(own_event(DROPPED, count=1), denied=True)


def test_the_summary() -> None:
    assert summary(TraceCounts(events=5, connections=1)) == "5 events"
    assert summary(TraceCounts(5, 4, 3, 2, 1, 1)) == (
        "5 events, 4 dropped, 3 malformed, 2 of kinds unknown to this version, 1 connections refused"
    )


def test_json_has_all_of_it() -> None:
    event = TraceEvent("p", 5, PROCESS, {"path": "a\udcff\n\x9b", "data": b"\xff\0", "list": ["x"], "n": -1}, denied=13)
    found = json.loads(json_line(event))
    assert found["fields"] == {"path": "a\udcff\n\x9b", "data": "/wA=", "list": ["x"], "n": -1}
    assert found["process"]["credentials"]["saved_gid"] == 6
    assert (found["denied"], found["result"]) == (13, None)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["mode", "address", "x"]), inner),
    max_leaves=12,
)
NAMES = st.sampled_from(["mode", "flags", "address", "exit_status", "pathname", "sysno", "count"])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(NAMES, VALUES),
    st.integers(-(2**63), 2**63 - 1),
    st.text(alphabet=st.characters()),
    st.integers(-(2**63), 2**63 - 1) | st.none(),
)
def test_nothing_that_a_guest_says_is_more_than_a_line(
    fields: dict[str, Value], when: int, name: str, denied: int | None
) -> None:
    event = TraceEvent("p", when, TraceProcess(thread_id=1, name=name, cwd=name), fields, denied=denied)
    shown = text_line(event)
    assert shown.isprintable()
    one = json_line(event)
    assert one.isascii()
    assert one.isprintable()
    assert json.loads(one)["process"]["name"] == name


def test_a_line_is_short_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(line({"argv": ["x" * 10_000] * 1000, "pathname": "y" * 100_000, "data": os.urandom(10_000)})) < 1000
