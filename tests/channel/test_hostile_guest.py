"""What a guest can do to its caller: nonsense at each moment, an end at each moment, and never a word. Each time one
typed error, no hang, and nothing left behind. The control is the same conversation, said to its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from immure import PIPE, BoxLost
from immure.channel import frames
from immure.channel.aio import LoopDriver
from immure.channel.frames import Frame, encode
from immure.channel.limits import GUEST_FRAME_BYTES, WINDOW_BYTES
from immure.engine.readiness import readable
from immure.errors import ChannelError, SetupFailed

from .corpus import INVALID
from .fakes import CONFIGURED, HELLO, FakeGuest, FakeSandbox, playing

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_stays")]

#: What a command says that writes two words and ends.
STORY: list[Frame] = [
    frames.OutputData(1, 1, b"out"),
    frames.OutputData(1, 2, b"err"),
    frames.Exited(1, 3 << 8, 0, 0, 1000, 64, 0),
    frames.OutputEnd(1, 1),
    frames.OutputEnd(1, 2),
]
NONSENSE: dict[str, bytes] = {
    "a length of nothing": bytes(4),
    "a length that is huge": b"\xff\xff\xff\xff",
    "one byte more than the longest": (GUEST_FRAME_BYTES + 1).to_bytes(4, "little"),
    "no MessagePack": b"\x02\0\0\0\xc1\xc1",
    "text that is none": INVALID["fault of text that is none"][1],
    "an unknown kind": INVALID["kind 78"][1],
    "a call of the host": encode(frames.Shutdown()),
    "a second hello": encode(HELLO) * 2,
    "a second answer to the configuration": encode(CONFIGURED) * 2,
    "an unknown stream": encode(frames.OutputData(99, 1, b"x")),
    "an end that nobody asked for": encode(frames.Bye()),
    "a pong that nobody asked for": encode(frames.Pong(1)),
    "a pause that nobody asked for": encode(frames.Paused(1)),
    "a page of a web server": b"HTTP/1.1 200 OK\r\n\r\n" * 10,
    "letters": b"a" * 10_000,
}


def test_the_control(guest: FakeGuest) -> None:
    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(*STORY)
        guest.hear_until(frames.Shutdown)
        guest.say(frames.Bye())

    with playing(part), FakeSandbox(guest) as box:
        assert box._box.ready() == {}
        result = box.exec(["true"])
        assert (result.exit.code, result.stdout, result.stderr) == (3, b"out", b"err")
        assert (result.usage.cpu_ms, result.usage.memory_peak_bytes) == (1, 65536)
    assert box._box.failure is None


@pytest.mark.parametrize("name", NONSENSE)
class TestNonsense:
    def test_first_of_all(self, guest: FakeGuest, name: str) -> None:
        with FakeSandbox(guest) as box:
            guest.say(NONSENSE[name])
            with pytest.raises(ChannelError):
                box._box.ready()

    def test_after_the_hello(self, guest: FakeGuest, name: str) -> None:
        with FakeSandbox(guest) as box:
            guest.say(HELLO, NONSENSE[name])
            with pytest.raises(ChannelError):
                box._box.ready()
                # The first of two answers was one.
                box.exec(["true"])

    def test_when_nobody_waits(self, guest: FakeGuest, name: str) -> None:
        with FakeSandbox(guest) as box:
            guest.answer_hello()
            box._box.ready()
            guest.say(NONSENSE[name])
            assert guest.hear() is None
            for call in (lambda: box.exec(["true"]), lambda: box.start(["true"]), box.pause):
                with pytest.raises(ChannelError):
                    call()

    def test_while_a_command_runs(self, guest: FakeGuest, name: str) -> None:
        def part() -> None:
            guest.answer_hello()
            guest.hear_until(frames.Exec)
            guest.say(STORY[0], NONSENSE[name])
            assert guest.hear() is None

        with playing(part), FakeSandbox(guest) as box:
            box._box.ready()
            with pytest.raises(ChannelError) as caught:
                box.exec(["true"])
            assert caught.value.need
            assert caught.value.have

    def test_where_a_start_is_waited_for(self, guest: FakeGuest, name: str) -> None:
        def part() -> None:
            guest.answer_hello()
            guest.hear_until(frames.Exec)
            guest.say(NONSENSE[name])
            assert guest.hear() is None

        with playing(part), FakeSandbox(guest) as box:
            box._box.ready()
            with pytest.raises(ChannelError):
                box.start(["true"], stdin=PIPE)

    def test_in_the_place_of_the_last_word(self, guest: FakeGuest, name: str) -> None:
        def part() -> None:
            guest.answer_hello()
            guest.hear_until(frames.Shutdown)
            guest.say(NONSENSE[name] if name != "an end that nobody asked for" else bytes(4))

        with playing(part), FakeSandbox(guest) as box:
            box._box.ready()


def test_an_end_at_each_byte() -> None:
    before, after = [HELLO, CONFIGURED], [frames.Started(1), *STORY]
    whole = b"".join(map(encode, before + after))
    first = sum(len(encode(one)) for one in before)
    for end in range(len(whole)):
        guest = FakeGuest()

        def part(guest: FakeGuest = guest, end: int = end) -> None:
            guest.say(whole[: min(end, first)])
            if end > first:
                # The rest may be said once there is a command.
                guest.hear_until(frames.Exec)
                guest.say(whole[first:end])
            guest.close()

        with playing(part), FakeSandbox(guest) as box, pytest.raises(BoxLost):
            box._box.ready()
            box.start(["true"]).wait()
            box.exec(["true"])
        assert guest.ended.is_set()


def test_a_guest_that_never_says_a_word(guest: FakeGuest) -> None:
    with FakeSandbox(guest, start_s=0.1) as box, pytest.raises(BoxLost, match="does not answer"):
        box._box.ready()


def test_a_guest_that_never_ends(guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immure.runtimes.guest.box._END_S", 0.1)
    with FakeSandbox(guest) as box:
        guest.answer_hello()
        box._box.ready()


def test_a_command_that_never_answers_has_its_time(guest: FakeGuest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immure.runtimes.guest.box._END_S", 0.1)
    with FakeSandbox(guest) as box:
        guest.answer_hello()
        box._box.ready()
        assert box.exec(["true"], timeout_s=0.1).exit.kind == "timeout"


def test_a_configuration_that_can_not_be_applied(guest: FakeGuest) -> None:
    with FakeSandbox(guest) as box:
        guest.say(HELLO, frames.Fault("landlock", "/usr", 2))
        with pytest.raises(SetupFailed, match="landlock /usr") as caught:
            box._box.ready()
        assert (caught.value.step, caught.value.errno) == ("landlock", 2)


def test_a_guest_that_gives_up_later(guest: FakeGuest) -> None:
    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(frames.Fault("poll", "", 12))

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        with pytest.raises(BoxLost, match="gave up: poll"):
            box.exec(["true"])


@pytest.mark.timeout(8)
def test_one_that_ends_while_it_is_to_say_nothing(guest: FakeGuest) -> None:
    """Its caller is told at once, and does not wait for the rest of the time that a guest has for that."""

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Park)
        guest.close()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        with pytest.raises(BoxLost, match="ended"), box._box.parked():
            pytest.fail("it is not parked")


def test_another_version_is_named(guest: FakeGuest) -> None:
    with FakeSandbox(guest) as box:
        guest.say(frames.Hello("immure", 2, 1, 1, 1))
        with pytest.raises(ChannelError, match="needed: immure 1; have: 'immure' 2"):
            box._box.ready()


@pytest.mark.parametrize("name", ["letters", "an unknown stream", "a second hello"])
def test_nonsense_in_an_event_loop(guest: FakeGuest, name: str) -> None:
    async def work() -> None:
        box = guest.box(drive=LoopDriver)
        try:
            guest.say(HELLO, CONFIGURED)
            await readable(box.owner.fileno())
            box.ready()
            guest.say(NONSENSE[name])
            await readable(box.owner.fileno())
            box.hear_owner()
            assert isinstance(box.failure, ChannelError)
        finally:
            box.close()

    asyncio.run(work())


def test_floods_stop_where_there_is_no_more_room(guest: FakeGuest) -> None:
    """More than was granted is an error; as much is kept for a caller who does not read."""
    chunk = frames.OutputData(1, 1, bytes(1 << 16))

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(frames.Started(1), *[chunk] * (WINDOW_BYTES >> 16))

    with FakeSandbox(guest) as box:
        with playing(part):
            box._box.ready()
            process = box.start(["true"])
        assert process.stdout.read(1 << 17) == bytes(1 << 17)
        credit = guest.hear_until(frames.OutputCredit)
        assert credit.bytes >= 1 << 17
        guest.say(*[chunk] * (credit.bytes >> 16), chunk)
        with pytest.raises(ChannelError, match="credit"):
            process.wait()
        process.close()


def test_a_command_too_many_is_refused_alone(guest: FakeGuest) -> None:
    """And one that is too long, as the kernel does it."""
    few: Callable[[int], frames.Hello] = lambda streams: frames.Hello("immure", 1, 6 << 20, streams, 4096)  # noqa: E731
    with FakeSandbox(guest) as box:
        guest.say(few(1), CONFIGURED)
        box._box.ready()
        from immure import ExecFailed

        with pytest.raises(ExecFailed, match="Argument list too long"):
            box.exec(["x", "y" * (6 << 20)])

        def part() -> None:
            guest.hear_until(frames.Exec)
            guest.say(frames.Started(1))

        with playing(part):
            process = box.start(["true"])
        with pytest.raises(ExecFailed, match="Resource temporarily unavailable"):
            box.exec(["true"])
        guest.say(*STORY)
        assert process.wait().exit.code == 3
        process.close()
