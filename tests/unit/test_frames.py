"""Messages to and from the native program, well formed and not."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.errors import ImmureError, SpecError
from immure.policy.seccomp import MAX_INSTRUCTIONS
from immure.runtimes.process import frames


def encoded(values: dict[str, bytes]) -> bytes:
    """As `frame.rs` writes items: u8 length, name, u32 length, value."""
    out = b""
    for name, value in values.items():
        word = name.encode()
        out += bytes([len(word)]) + word + struct.pack("<I", len(value)) + value
    return out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((frames.BOX,), "0300 0000 00000000"),
        ((frames.BOX, frames.ONE_SHOT, 7), "0300 0100 07000000"),
        ((frames.EXEC, frames.IN_FILE), "0b00 0100 00000000"),
        ((frames.SIGNAL, frames.GROUP, 0xFFFF_FFFF), "0c00 0200 ffffffff"),
    ],
)
def test_header(arguments: tuple[int, ...], expected: str) -> None:
    message = frames.header(*arguments)
    assert message == bytes.fromhex(expected)
    assert frames.kind_of(message) == arguments[0]


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF))
def test_header_round_trip(kind: int, flags: int, number: int) -> None:
    message = frames.header(kind, flags, number)
    assert len(message) == 8
    assert struct.unpack("<HHI", message) == (kind, flags, number)


def test_no_two_kinds_are_the_same() -> None:
    kinds = [frames.PLAN, frames.BOX, frames.RELEASE, frames.KILL, frames.EXEC, frames.SIGNAL]
    kinds += [frames.READY, frames.ENDED, frames.FAILED, frames.EXITED]
    assert len(kinds) == len(set(kinds))


@given(st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=9))
def test_numbers(unsigned: int, signed: int, long: int, before: bytes) -> None:
    data = before + struct.pack("<IiQ", unsigned, signed, long) + b"rest"
    at = len(before)
    assert (frames.u32(data, at), frames.i32(data, at + 4), frames.u64(data, at + 8)) == (unsigned, signed, long)


_ITEMS = st.dictionaries(st.text(max_size=60), st.binary(max_size=300), max_size=8)


@given(_ITEMS, st.binary(max_size=16))
def test_items_round_trip(values: dict[str, bytes], before: bytes) -> None:
    assert frames.items(before + encoded(values), len(before)) == values


def test_no_items() -> None:
    assert frames.items(b"", 0) == frames.items(b"12345678", 8) == frames.items(b"1234", 8) == {}


@given(st.binary(max_size=400), st.integers(0, 20))
def test_any_bytes_are_read_or_refused(data: bytes, offset: int) -> None:
    try:
        found = frames.items(data, offset)
    except (ValueError, ImmureError):
        return
    assert sum(len(name.encode()) + len(value) for name, value in found.items()) <= len(data)


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "data",
    [
        b"\x01a\xff\xff\xff\xff",
        b"\x01a\xff\xff\xff\x7f" + bytes(100),
        b"\xff" + bytes(3),
        b"\x00\x00\x00\x00\x00" * 6000,
        bytes(frames.MESSAGE_LIMIT),
    ],
    ids=["a value of 4 GiB", "a value of 2 GiB", "a long name", "many without a name", "zeros"],
)
def test_hostile_lengths_neither_hang_nor_allocate(data: bytes) -> None:
    try:
        found = frames.items(data, 0)
    except (ValueError, ImmureError):
        return
    assert sum(map(len, found.values())) <= len(data)


@given(_ITEMS.filter(bool), st.data())
def test_items_that_were_cut_are_refused(values: dict[str, bytes], data: st.DataObject) -> None:
    whole = encoded(values)
    last = list(values.items())[-1:]
    start = len(whole) - len(encoded(dict(last)))
    cut = data.draw(st.integers(start + 1, len(whole) - 1))
    with pytest.raises((ValueError, ImmureError)):
        frames.items(whole[:cut], 0)


def parsed(payload: bytes) -> tuple[tuple[int, ...], list[bytes]]:
    numbers = struct.unpack("<4I", payload[:16])
    assert payload.endswith(b"\0")
    return numbers, payload[16:-1].split(b"\0")


def test_a_command() -> None:
    payload = frames.exec_payload(1000, 1001, "/work", [b"ls", b"", b"-l"], {b"PATH": b"/bin", b"A": b"b=c"})
    assert parsed(payload) == (
        (1000, 1001, 3, 2),
        [b"/work", b"/bin", b"ls", b"", b"-l", b"PATH=/bin", b"A=b=c"],
    )


def test_a_command_without_a_path() -> None:
    _, strings = parsed(frames.exec_payload(0, 0, "/", [b"ls"], {}))
    assert strings == [b"/", b"", b"ls"]


def test_a_working_directory_may_be_any_bytes() -> None:
    _, strings = parsed(frames.exec_payload(0, 0, b"/\xff".decode(errors="surrogateescape"), [b"ls"], {}))
    assert strings[0] == b"/\xff"


_BYTES = st.binary(max_size=20).map(lambda value: value.replace(b"\0", b""))


@given(st.lists(_BYTES, min_size=1, max_size=6), st.dictionaries(_BYTES, _BYTES, max_size=5))
def test_a_command_round_trip(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    numbers, strings = parsed(frames.exec_payload(1, 2, "/w", argv, env))
    assert numbers == (1, 2, len(argv), len(env))
    assert strings[2 : 2 + len(argv)] == argv
    assert strings[2 + len(argv) :] == [name + b"=" + value for name, value in env.items()]


@pytest.mark.parametrize(
    ("workdir", "argv", "env"),
    [
        ("/\0", [b"ls"], {}),
        ("/", [b"l\0s"], {}),
        ("/", [b"ls", b"\0"], {}),
        ("/", [b"ls"], {b"A\0": b"b"}),
        ("/", [b"ls"], {b"A": b"b\0C=d"}),
        ("/", [b"ls"], {b"PATH": b"/bin\0"}),
    ],
)
def test_no_part_of_a_command_can_pass_for_two(workdir: str, argv: list[bytes], env: dict[bytes, bytes]) -> None:
    with pytest.raises(SpecError, match="a NUL byte"):
        frames.exec_payload(0, 0, workdir, argv, env)


def test_steps_are_named_once() -> None:
    assert len(frames.STEPS) == len(set(frames.STEPS))
    assert frames.STEPS[0] == ""


def test_a_message_holds_the_longest_readback() -> None:
    """A profile's filter of 8 bytes an instruction, the guard's, and the rest of a readback."""
    assert frames.MESSAGE_LIMIT >= MAX_INSTRUCTIONS * 8 + 8 * 1024


def native(name: str) -> str:
    path = Path(__file__).parents[2] / "native/src" / name
    if not path.is_file():
        pytest.skip("host: a copy of the tests alone")
    return path.read_text()


def test_both_sides_number_the_steps_alike() -> None:
    listed = re.search(r"const STEPS: \[&str; \d+\] = \[(.*?)\];", native("init/command.rs"), re.DOTALL)
    assert listed is not None
    assert tuple(re.findall(r'"(\w*)"', listed[1])) == frames.STEPS
    assert f"pub const PAUSED: u32 = {frames.PAUSED};" in native("init/command.rs")


def test_both_sides_number_messages_and_flags_alike() -> None:
    there = {name: int(number) for name, number in re.findall(r"pub const (\w+): u16 = (\d+);", native("frame.rs"))}
    here = {name: number for name, number in vars(frames).items() if name.isupper() and type(number) is int}
    both = there.keys() & here.keys()
    assert {name: there[name] for name in both} == {name: here[name] for name in both}
    # What only the native program's own processes say to each other, and what only limits lengths here.
    assert there.keys() - both == {"FAULT", "WITNESS", "GO", "ORDER"}
    assert here.keys() - both == {"INLINE_LIMIT", "MESSAGE_LIMIT", "SHORT_LIMIT", "EXITED_BYTES", "PAUSED"}
