"""The codec, with the frames that the native program's codec is tested with too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.channel import frames, limits
from immure.channel.frames import KINDS, decode, decode_any, encode
from immure.channel.limits import CHUNK_BYTES, GUEST_FRAME_BYTES, HOST_FRAME_BYTES
from immure.channel.splitter import Splitter
from immure.errors import ChannelError
from immure.runtimes.process.frames import STEPS

from .corpus import INVALID, LOOSE, VALID

pytestmark = pytest.mark.rootless


def only_frame(data: bytes) -> bytes:
    splitter = Splitter(HOST_FRAME_BYTES)
    splitter.put(data)
    body = splitter.next()
    assert body is not None
    assert splitter.is_empty()
    return body


@pytest.mark.parametrize("name", VALID)
def test_a_frame_is_read_and_written_as_it_was(name: str) -> None:
    assert encode(decode_any(only_frame(VALID[name]))) == VALID[name]


@pytest.mark.parametrize("name", LOOSE)
def test_longer_forms_mean_the_same(name: str) -> None:
    loose, strict = LOOSE[name]
    assert loose != strict
    assert encode(decode_any(only_frame(loose))) == strict


@pytest.mark.parametrize("name", INVALID)
def test_what_is_no_frame_is_refused_and_says_why(name: str) -> None:
    fault, data = INVALID[name]
    with pytest.raises(ChannelError) as caught:
        decode_any(only_frame(data))
    error = caught.value
    assert error.fault == fault, str(error)
    assert error.need
    assert error.have
    # Whatever it says, the error is short.
    assert len(str(error)) < 400


def test_every_kind_is_in_the_corpus() -> None:
    assert {type(decode_any(data[4:])) for data in VALID.values()} == set(KINDS.values())


def test_what_only_a_host_may_say_is_no_word_of_a_guest() -> None:
    for number, kind in KINDS.items():
        data = next(data for data in VALID.values() if type(decode_any(data[4:])) is kind)
        if 0 < number < 64:
            with pytest.raises(ChannelError):
                decode(data[4:])
        else:
            assert type(decode(data[4:])) is kind


@given(st.lists(st.sampled_from(sorted(VALID.values())), min_size=1, max_size=8), st.data())
def test_pieces_of_any_size_are_the_same_frames(whole: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(whole)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    splitter, found = Splitter(HOST_FRAME_BYTES), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        splitter.put(stream[begin:end])
        while (body := splitter.next()) is not None:
            found.append(body)
    assert found == [one[4:] for one in whole]
    assert splitter.is_empty()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        frame = decode_any(body)
    except ChannelError as error:
        assert error.fault in ("malformed", "kind", "fields", "version")
    else:
        assert decode_any(encode(frame)[4:]) == frame


def test_a_length_is_refused_before_its_frame_is_there() -> None:
    splitter = Splitter(1000)
    splitter.put((1001).to_bytes(4, "little"))
    with pytest.raises(ChannelError, match="length"):
        splitter.next()
    # The control: one that fits is waited for.
    splitter = Splitter(1001)
    splitter.put((1001).to_bytes(4, "little"))
    assert splitter.next() is None


def native(name: str) -> str:
    path = Path(__file__).parents[2] / "native/src/channel" / name
    if not path.is_file():
        pytest.skip("host: a copy of the tests alone")
    return path.read_text()


def test_both_sides_have_the_same_table() -> None:
    rows = re.findall(r"^    (\d+) (\w+) \{ ?(.*?) ?\}$", native("frame.rs"), re.MULTILINE)
    there = {int(number): (name, re.findall(r"(\w+):", fields)) for number, name, fields in rows}
    here = {number: (kind.__name__, list(kind.__struct_fields__)) for number, kind in KINDS.items()}
    # `configuration` and such are named alike too.
    assert there == here


def test_both_sides_have_the_same_flags_and_limits() -> None:
    flags = {name: int(value) for name, value in re.findall(r"pub const (\w+): u16 = (\d+);", native("frame.rs"))}
    assert flags.pop("ALL_FLAGS") == sum(flags.values())
    assert flags == {name: getattr(frames, name) for name in flags}
    text = native("mod.rs").replace("CHUNK_BYTES as u32", "CHUNK_BYTES")
    found = re.findall(r"pub const (\w+): \S+ = (.*?);", re.sub(r"\[u32; 2\]", "range", text))
    for name, value in found:
        here = getattr(limits, name)
        there = eval(value.replace("[", "(").replace("]", ")"), dict(vars(limits)))
        assert there == here, name
    assert len(found) == 10


def page() -> str:
    path = Path(__file__).parents[2] / "docs/channel.md"
    if not path.is_file():
        pytest.skip("host: a copy of the tests alone")
    return path.read_text()


def test_the_page_has_the_same_table() -> None:
    tables = page().partition("## The beginning")[0]
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \|(.*)\|$", tables, re.MULTILINE)
    there = {int(number): (name, re.findall(r"(?:^|, )(\w+)", fields.strip())) for number, name, fields in rows}
    assert there == {number: (in_capitals(kind), list(kind.__struct_fields__)) for number, kind in KINDS.items()}


def in_capitals(kind: type[frames.Frame]) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def test_the_page_has_the_same_numbers() -> None:
    rest = page().partition("## The beginning")[2]
    flags = {name: int(number) for number, name in re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", rest, re.MULTILINE)}
    assert flags == {name: getattr(frames, name) for name in ("NO_INPUT", "HOLD", "TELL", "TERMINAL", "BUILTIN")}
    words = re.sub(r"\s+", " ", page())
    assert ", ".join(f"{number} {step}" for number, step in enumerate(STEPS[: STEPS.index("witness")]) if step) in words
    assert f"{GUEST_FRAME_BYTES:,} bytes" in words
    assert f"1 to {CHUNK_BYTES:,} of them" in words
