"""What real Sentries report, of each runsc that there is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from immure.errors import SpecError
from immure.runtimes.gvisor.trace import DROPPED, Trace, TraceEvent, choose_points, default_points, make_session
from immure.runtimes.gvisor.trace.schema import CALLS, POINTS, RAW, RAW_TYPE
from immure.runtimes.gvisor.trace.wire import Field, Kind, Malformed, Message, decode, i32, nested, text
from listening import listening_at

from .sentries import Sentry, every_runsc, offer_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not every_runsc(), reason="runsc is not installed"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="host: the calls are x86_64's"),
]


@pytest.fixture(params=every_runsc() or ["runsc"])
def sentry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sentry]:
    with Sentry(request.param, tmp_path) as made:
        yield made


def trace_of(sentry: Sentry, arguments: list[str], points: tuple[str, ...], **fields: object) -> list[TraceEvent]:
    with trace_at(sentry.socket) as trace:
        assert sentry.run(arguments, choose_points(points, offer_of(sentry.runsc)), **fields) == 3
        trace.finish()
        events = [*trace]
        assert trace.counts.malformed == trace.counts.unknown == trace.counts.refused == 0
        assert trace.counts.connections == 1
    return events


def trace_at(path: Path, **bounds: int) -> Trace:
    path.unlink(missing_ok=True)
    return Trace(listening_at(path), **bounds)


def test_every_point_that_is_no_bare_call_is_seen_and_understood(sentry: Sentry) -> None:
    points = choose_points(("container/*", "sentry/*", "syscall/*/*", "syscall/sysno/110/*"), offer_of(sentry.runsc))
    events = trace_of(sentry, ["every"], points)
    assert {event.point for event in events} - {DROPPED} == set(points)
    assert all(event.process.thread_id and event.process.container_id == "traced" for event in events if event.time_ns)
    ended = [event.fields["exit_status"] for event in events if event.point == "sentry/exit_notify_parent"]
    assert signal.SIGTERM in ended


def test_what_failed_says_with_which_error(sentry: Sentry) -> None:
    events = trace_of(sentry, ["every"], ("syscall/openat/exit", "syscall/chroot/exit"))
    denied = [(event.fields["pathname"], event.denied) for event in events if event.denied]
    assert denied == [("/none/such", 2), ("/tmp", 21), ("/none", 1)]


def test_fields_come_when_they_are_asked_for(sentry: Sentry) -> None:
    points = ("syscall/write/enter",)
    (bare,) = trace_of(sentry, ["every"], points)
    assert (bare.process.name, bare.process.cwd, bare.process.credentials) == ("", "", None)
    assert bare.fields["fd_path"] == ""
    context = ("process_name", "cwd", "credentials")
    (full,) = trace_of(sentry, ["every"], points, context=context, optional=("fd_path",))
    assert (full.process.name, full.process.cwd) == ("traced_calls", "/")
    assert full.process.credentials is not None
    assert full.fields["fd_path"] == "/tmp/file"
    assert (full.time_ns, full.process.thread_id) == (0, 0)


def test_a_name_that_is_no_text_hides_a_command_from_who_asks_for_names_alone(sentry: Sentry) -> None:
    """gVisor leaves out what it can't encode, and counts nothing: why names are in no event by default."""

    def seen(events: list[TraceEvent]) -> list[object]:
        return [event.fields["pathname"] for event in events if str(event.fields.get("pathname")).startswith("/none")]

    named = trace_of(sentry, ["names"], ("syscall/openat/exit",), context=("process_name", "cwd"))
    assert seen(named) == ["/none/1"]
    events = trace_of(sentry, ["names"], ("syscall/openat/exit", "syscall/sysno/257/exit"))
    assert seen(events) == ["/none/1", "/none/2", "/none/3"]
    # A path that is no text hides its call from the point that would tell the path, not from the bare one.
    assert sum(event.point == "syscall/sysno/257/exit" for event in events) == 4


def test_a_flood_is_seen_or_counted(sentry: Sentry) -> None:
    count = 20_000
    with trace_at(sentry.socket, max_events=500) as trace:
        points = ("syscall/close/exit", "container/start")
        assert sentry.run(["flood", str(count)], points, retries=0) == 3
        # Nobody has read anything: all but what is kept here, and in the socket, was dropped.
        assert trace.counts.events < 2000
        trace.finish()
        seen = sum(event.point == "syscall/close/exit" for event in trace)
        assert 400 < seen < 2000
    with trace_at(sentry.socket) as trace:
        assert sentry.run(["flood", str(count)], points) == 3
        trace.finish()
        seen = sum(event.point == "syscall/close/exit" for event in trace)
        counts = trace.counts
    assert seen + counts.dropped in range(count - 50, count + 1)
    assert counts.dropped < count // 4, "the Sentry waits a little for who reads"


def test_what_a_version_lacks_is_named_before_anything_is_started(sentry: Sentry) -> None:
    offer = offer_of(sentry.runsc)
    assert len(default_points(offer)) >= 11
    assert "syscall/openat/exit" in default_points(offer)
    with pytest.raises(SpecError, match="'sentry/none'"):
        choose_points(["sentry/execve", "sentry/none"], offer)
    with pytest.raises(SpecError, match="'nonsense'"):
        make_session(["sentry/execve"], offer, "/x", context=["nonsense"])


# What describes a schema, in `descriptor.proto`; the program has that of its trace points in it.
_FIELD = Message(
    "FieldDescriptorProto", text(1, "name"), i32(3, "number"), i32(4, "label"), i32(5, "type"), text(6, "type_name")
)
_MESSAGE = Message("DescriptorProto", text(1, "name"), nested(2, "field", of=_FIELD, repeated=True))
_VALUE = Message("EnumValueDescriptorProto", text(1, "name"), i32(2, "number"))
_ENUM = Message("EnumDescriptorProto", text(1, "name"), nested(2, "value", of=_VALUE, repeated=True))
_FILE = Message(
    "FileDescriptorProto",
    text(1, "name"),
    nested(4, "message_type", of=_MESSAGE, repeated=True),
    nested(5, "enum_type", of=_ENUM, repeated=True),
)
_TYPES = {
    3: Kind.I64,
    4: Kind.U64,
    5: Kind.I32,
    8: Kind.BOOL,
    9: Kind.TEXT,
    11: Kind.MESSAGE,
    12: Kind.BYTES,
    13: Kind.U32,
}
_SYNTAX = b"b\x06proto3"


def described(program: bytes, name: str) -> dict[str, list[dict[str, object]]]:
    """The description of one file of a schema, out of the program that was compiled with it."""
    path = f"pkg/sentry/seccheck/points/{name}.proto".encode()
    begin = -1
    while (begin := program.find(b"\n" + bytes([len(path)]) + path, begin + 1)) >= 0:
        end = program.find(_SYNTAX, begin) + len(_SYNTAX)
        try:
            return decode(_FILE, program[begin:end])  # type: ignore[return-value]
        except Malformed:
            continue
    raise AssertionError(f"no description of {name} in it")


def test_the_schema_is_that_which_the_program_was_made_with(sentry: Sentry) -> None:
    program = Path(sentry.runsc).read_bytes()
    files = [described(program, name) for name in ("common", "container", "sentry", "syscall")]
    theirs = {str(message["name"]): message["field"] for one in files for message in one["message_type"]}
    waiting = [*(message for _, message in POINTS.values()), RAW, *CALLS.values()]
    checked = set[str]()
    while waiting:
        message = waiting.pop()
        if message.name in checked or message.name not in theirs:
            # Of a later version.
            continue
        checked.add(message.name)
        for field in theirs[message.name]:  # type: ignore[attr-defined]
            ours = message.fields.get(field["number"])
            label = f"{message.name}.{field['name']}"
            assert ours is not None, f"{label} is missing"
            expected = Field(ours.number, field["name"], _TYPES[field["type"]], ours.of, field["label"] == 3)
            assert ours == expected, label
            if ours.of is not None:
                assert field["type_name"].endswith(f".{ours.of.name}"), label
                waiting.append(ours.of)
    assert len(checked) >= 40
    (kinds,) = files[0]["enum_type"]
    numbers = {value["number"] for value in kinds["value"]}  # type: ignore[attr-defined]
    assert numbers - {0} <= {*POINTS, RAW_TYPE, *CALLS}
