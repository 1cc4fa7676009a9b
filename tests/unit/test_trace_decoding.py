"""What Sentries sent, read again: frames recorded of two versions, and frames by chance."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from immure.policy.seccomp.abi import ABIS
from immure.policy.seccomp.syscalls import name_of
from immure.runtimes.gvisor.trace import MALFORMED, TraceEvent
from immure.runtimes.gvisor.trace.events import read_event
from immure.runtimes.gvisor.trace.intake import Intake, Peer
from immure.runtimes.gvisor.trace.schema import CALLS, POINTS, RAW, RAW_TYPE
from immure.runtimes.gvisor.trace.wire import (
    Field,
    Kind,
    Malformed,
    Message,
    boolean,
    data,
    decode,
    i32,
    i64,
    nested,
    text,
    texts,
    u32,
    u64,
)

FRAMES = Path(__file__).parent / "trace_frames"
VERSIONS = ("2024-07", "2026-09")
KINDS = (*POINTS, RAW_TYPE, *CALLS)


def x86_name(number: int) -> str | None:
    return name_of(ABIS["x86_64"], number)


def recorded(version: str) -> dict[str, bytes]:
    lines = (FRAMES / f"{version}.txt").read_text().splitlines()
    return {name: bytes.fromhex(frame) for name, frame in (line.rsplit(" ", 1) for line in lines)}


def event_of(frame: bytes) -> TraceEvent:
    return read_event(int.from_bytes(frame[2:4], "little"), frame[8:], x86_name)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_recorded_frame_is_the_event_that_it_was_recorded_as(version: str) -> None:
    frames = recorded(version)
    assert len(frames) > 100
    for name, frame in frames.items():
        event = event_of(frame)
        assert event.point == name.removesuffix(" denied")
        assert (event.denied is not None) == name.endswith(" denied")
        assert (event.result is not None) == (event.point.endswith("/exit") and event.denied is None)


def test_who_it_was() -> None:
    process = event_of(recorded("2026-09")["syscall/openat/exit denied"]).process
    assert (process.thread_id, process.group_id, process.container_id) == (1, 1, "traced")
    assert (process.name, process.cwd) == ("traced_calls", "/")
    assert process.credentials is not None
    assert process.credentials.effective_uid == 0
    assert process.thread_start_time_ns == process.group_start_time_ns > 1_700_000_000 * 10**9


@pytest.mark.parametrize("version", VERSIONS)
def test_what_it_did(version: str) -> None:
    frames = recorded(version)
    refused = event_of(frames["syscall/openat/exit denied"])
    assert refused.denied == 2
    assert refused.fields == {"sysno": 257, "fd": -100, "fd_path": "", "pathname": "/none/such", "flags": 0, "mode": 0}
    assert refused.time_ns > 1_700_000_000 * 10**9
    opened = event_of(frames["syscall/openat/exit"])
    assert (opened.fields["pathname"], opened.fields["mode"], opened.result) == ("/tmp/file", 0o640, 3)
    assert event_of(frames["container/start"]).fields["args"] == ["/traced_calls", "every"]
    assert event_of(frames["sentry/execve"]).fields["argv"] == ["/traced_calls", "nothing", "two words"]
    assert event_of(frames["sentry/task_exit"]).fields["exit_status"] == 3 << 8
    assert event_of(frames["syscall/bind/exit"]).fields["address"] == b"\x02\0\x10\xe1\x7f\0\0\1" + bytes(8)
    timer = cast("dict[str, dict[str, int]]", event_of(frames["syscall/timerfd_settime/exit"]).fields["new_value"])
    assert timer["value"] == {"sec": 3600, "nsec": 5}
    raw = event_of(frames["syscall/sysno/110/enter"])
    assert (raw.fields["sysno"], raw.fields["arg1"]) == (110, 12345)


def test_numbers_are_of_their_sign() -> None:
    fields = event_of(recorded("2026-09")["syscall/setresuid/enter"]).fields
    assert fields["rid"] == 2**32 - 1
    assert event_of(recorded("2026-09")["syscall/close/exit denied"]).fields["fd"] == -1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_frame_that_was_cut_is_malformed_or_a_shorter_one(version: str) -> None:
    for frame in recorded(version).values():
        for end in range(8, len(frame)):
            try:
                event_of(frame[:end])
            except Malformed:
                pass


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


ALL = Message(
    "All",
    i32(1, "i32"),
    i64(2, "i64"),
    u32(3, "u32"),
    u64(4, "u64"),
    boolean(5, "boolean"),
    text(6, "text"),
    data(7, "data"),
    texts(8, "texts"),
    nested(9, "nested", of=Message("Inner", i32(1, "number"))),
    Field(10, "numbers", Kind.I32, repeated=True),
    Field(11, "fixed32", Kind.FIXED32),
    Field(12, "fixed64", Kind.FIXED64),
    Field(13, "fixed", Kind.FIXED32, repeated=True),
)


def wire(number: int, kind: int, body: bytes) -> bytes:
    return varint(number << 3 | kind) + body


def block(number: int, body: bytes) -> bytes:
    return wire(number, 2, varint(len(body)) + body)


@pytest.mark.parametrize(
    ("payload", "name", "value"),
    [
        (b"", "i32", 0),
        (b"", "text", ""),
        (b"", "texts", []),
        (b"", "nested", None),
        (wire(1, 0, varint(-5)), "i32", -5),
        (wire(1, 0, varint(0xFFFF_FFFB)), "i32", -5),
        (wire(1, 0, varint(2**40 + 7)), "i32", 7),
        (wire(2, 0, varint(-(2**63))), "i64", -(2**63)),
        (wire(3, 0, varint(2**32 + 1)), "u32", 1),
        (wire(4, 0, varint(2**64 - 1)), "u64", 2**64 - 1),
        (wire(4, 0, b"\xff" * 9 + b"\x7f"), "u64", 2**64 - 1),
        (wire(5, 0, varint(300)), "boolean", True),
        (block(6, "ü✓".encode()), "text", "ü✓"),
        (block(6, b"a\xff"), "text", "a\udcff"),
        (block(7, b"\xff\0"), "data", b"\xff\0"),
        (block(8, b"a") + block(8, b"") + block(8, b"b"), "texts", ["a", "", "b"]),
        (block(9, b""), "nested", {"number": 0}),
        (block(9, wire(1, 0, varint(3))), "nested", {"number": 3}),
        (block(10, varint(1) + varint(-1)) + wire(10, 0, varint(5)), "numbers", [1, -1, 5]),
        (wire(11, 5, b"\1\0\0\x80"), "fixed32", 2**31 + 1),
        (wire(12, 1, b"\1" + bytes(7)), "fixed64", 1),
        (block(13, b"\1\0\0\0\2\0\0\0"), "fixed", [1, 2]),
        # The last of several is meant.
        (wire(1, 0, b"\1") + wire(1, 0, b"\2"), "i32", 2),
        # Of another wire type, and unknown ones: passed over.
        (block(1, b"abc") + wire(6, 0, b"\1"), "text", ""),
        (wire(99, 0, b"\1") + block(98, b"x") + wire(97, 5, bytes(4)) + wire(96, 1, bytes(8)), "i32", 0),
    ],
)
def test_the_wire_format(payload: bytes, name: str, value: object) -> None:
    assert decode(ALL, payload)[name] == value


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80",
        b"\xff" * 11,
        wire(1, 0, b""),
        wire(6, 2, b"\5abc"),
        wire(6, 2, varint(2**63)),
        wire(99, 2, varint(2**64 - 1)),
        wire(11, 5, b"abc"),
        wire(99, 1, bytes(7)),
        wire(0, 0, b"\1"),
        wire(2**29, 0, b"\1"),
        wire(1, 3, b""),
        wire(1, 4, b""),
        wire(1, 6, b""),
        block(9, b"\x08"),
        block(10, b"\x80"),
        block(13, b"\1\0\0"),
        # What is nested ends where it says, not where it would like to.
        block(9, b"\x08")[:-1] + b"\x08\1",
    ],
)
def test_what_is_no_message(payload: bytes) -> None:
    with pytest.raises(Malformed):
        decode(ALL, payload)


@st.composite
def payloads(draw: st.DrawFn, depth: int = 3) -> bytes:
    """What looks like a message: real numbers of fields, most of them with what belongs there."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(0, 6))):
        number = draw(st.integers(0, 24))
        kind = draw(st.sampled_from([0, 0, 2, 2, 2, 1, 5, 3, 7]))
        if kind == 0:
            parts.append(wire(number, 0, varint(draw(st.integers(0, 2**64 - 1)))))
        elif kind == 2:
            body = draw(payloads(depth - 1)) if depth and draw(st.booleans()) else draw(st.binary(max_size=40))
            parts.append(block(number, body))
        else:
            parts.append(wire(number, kind, draw(st.binary(max_size=9))))
    return b"".join(parts)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(KINDS) | st.integers(0, 2**16 - 1), payloads() | st.binary(max_size=300))
@example(7, bytes(8))
def test_frames_by_chance_are_events_or_malformed(kind: int, payload: bytes) -> None:
    intake = Intake(x86_name, max_events=10, max_bytes=1000)
    peer = Peer()
    assert intake.put(peer, b"\x08\x01")
    intake.put(peer, (8).to_bytes(2, "little") + kind.to_bytes(2, "little") + bytes(4) + payload)
    event = intake.take()
    assert event is not None
    assert intake.take() is None
    assert intake.counts.malformed == (event.point == MALFORMED)
    assert intake.has_room


@settings(max_examples=600, deadline=None)
@given(st.data(), st.sampled_from(VERSIONS))
def test_recorded_frames_with_other_bytes_in_them(chance: st.DataObject, version: str) -> None:
    frame = bytearray(chance.draw(st.sampled_from(sorted(recorded(version).values()))))
    for _ in range(chance.draw(st.integers(1, 6))):
        frame[chance.draw(st.integers(0, len(frame) - 1))] = chance.draw(st.integers(0, 255))
    intake = Intake(x86_name, max_events=10, max_bytes=1000)
    peer = Peer()
    intake.put(peer, b"\x08\x01")
    intake.put(peer, bytes(frame))
    events = [event for event in (intake.take(), intake.take()) if event is not None]
    assert events
    assert intake.take() is None


def test_a_message_of_nothing_but_small_things_takes_no_more_than_it_may() -> None:
    payload = block(4, b"") * 100_000
    event = read_event(1, payload, x86_name)
    assert len(cast("list[str]", event.fields["args"])) == 100_000


def test_the_schema_has_every_number_once() -> None:
    for message in (*(message for _, message in POINTS.values()), RAW, *CALLS.values()):
        assert len(message.absent) == len(message.fields)
    assert sorted(KINDS) == list(range(1, 39))
