"""Commands whose output their caller keeps, as it comes over a channel: what a guest says in which order."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

import pytest

from immure import BoxLost
from immure.channel import frames
from immure.channel.limits import CHUNK_BYTES, WINDOW_BYTES

from .fakes import FakeGuest, FakeSandbox, playing
from .guests import eventually

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_stays")]

OUT, ERR = frames.OutputEnd(1, 1), frames.OutputEnd(1, 2)


def exited(stream: int = 1, *, status: int = 0, draining: int = 0) -> frames.Exited:
    return frames.Exited(stream, status, 0, 0, 1000, 64, draining)


def test_what_was_written_before_the_end_is_waited_for(guest: FakeGuest) -> None:
    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(frames.OutputData(1, 2, b"err"), exited(draining=1))
        time.sleep(0.05)
        guest.say(frames.OutputData(1, 1, b"late "), frames.OutputData(1, 1, b"words"))
        time.sleep(0.05)
        guest.say(frames.OutputDrained(1, 1), frames.OutputData(1, 1, b"of an orphan"), OUT, ERR)
        guest.see_off()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        result = box.exec(["true"])
        assert result.stderr == b"err"
        # What comes with the last of it may be kept or not; what comes before is.
        assert result.stdout.startswith(b"late words")
        assert eventually(lambda: not box._box._bridge._relays)


def test_what_others_write_later_is_neither_waited_for_nor_wanted(guest: FakeGuest) -> None:
    heard: list[frames.Frame | None] = []
    left = threading.Event()

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(frames.OutputData(1, 1, b"own"), exited())
        heard.extend([guest.hear(), guest.hear()])
        assert left.wait(10)
        # As somebody does who has not heard of it yet.
        guest.say(frames.OutputData(1, 1, b"an orphan's"), OUT, ERR)
        guest.see_off()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        assert box.exec(["true"]).stdout == b"own"
        assert box._box._bridge._relays
        left.set()
        assert eventually(lambda: not box._box._bridge._relays)
    assert heard == [frames.OutputClose(1, 1), frames.OutputClose(1, 2)]


def test_room_is_given_as_it_is_taken(guest: FakeGuest) -> None:
    size = 5 * WINDOW_BYTES

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        room, left = WINDOW_BYTES, size
        while left:
            while not room:
                credit = guest.hear_until(frames.OutputCredit)
                assert isinstance(credit, frames.OutputCredit)
                room += credit.bytes
            count = min(room, left, CHUNK_BYTES)
            guest.say(frames.OutputData(1, 1, bytes(count)))
            room, left = room - count, left - count
        guest.say(exited(), OUT, ERR)
        guest.see_off()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        assert box.exec(["true"]).stdout == bytes(size)


def test_small_pieces_take_no_more_room_than_large_ones(guest: FakeGuest) -> None:
    """Of those that nobody takes up meanwhile nothing is kept but their bytes."""
    taken_up = threading.Event()

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(*[frames.OutputData(1, 1, b"x")] * 50_000)
        assert taken_up.wait(10)
        guest.say(exited(), OUT, ERR)
        guest.see_off()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        one = box._box.begin(box.request(["true"]), None)
        arrived = one._arrived  # pyright: ignore[reportAttributeAccessIssue]
        assert eventually(lambda: len(arrived[0]) == 50_000)
        taken_up.set()
        one.run()
        one.leave()
        assert one.sinks[0].data == b"x" * 50_000


def test_one_that_writes_too_much_is_ended(guest: FakeGuest) -> None:
    heard: list[frames.Frame | None] = []

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(frames.OutputData(1, 1, bytes(3000)))
        heard.append(guest.hear())
        guest.say(frames.OutputData(1, 2, bytes(3000)), exited(status=9), OUT, ERR)
        guest.see_off()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        result = box.exec(["true"], output_mib=1000 / (1 << 20))
        assert (result.exit.kind, len(result.stdout), len(result.stderr)) == ("output", 1000, 0)
        assert result.truncated.stdout
        assert [len(one.data) for one in box.logs().entries if one.stream == "stdout"] == [1000]
    assert heard == [frames.Signal(1, 9, True)]


def test_one_whose_time_is_over_is_ended(guest: FakeGuest) -> None:
    heard: list[frames.Frame | None] = []

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        heard.append(guest.hear())
        guest.say(exited(status=9), OUT, ERR)
        guest.see_off()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        assert box.exec(["true"], timeout_s=0.1).exit.kind == "timeout"
    assert heard == [frames.Signal(1, 9, True)]


def test_one_that_is_given_up_is_ended(guest: FakeGuest) -> None:
    """By what is raised where it is waited for, as by Ctrl-C; the box goes on."""

    class Interrupted(Exception):
        pass

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise Interrupted

    heard: list[frames.Frame | None] = []

    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(frames.OutputData(1, 1, b"out"))
        heard.extend([guest.hear(), guest.hear(), guest.hear()])
        guest.say(OUT, exited(status=9), ERR)
        guest.hear_until(frames.Exec)
        guest.say(exited(2, status=5 << 8), frames.OutputEnd(2, 1), frames.OutputEnd(2, 2))
        guest.see_off()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with playing(part), FakeSandbox(guest) as box:
            box._box.ready()
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Interrupted):
                box.exec(["true"])
            assert box.exec(["true"]).exit.code == 5
            assert [one.data for one in box.logs().entries if one.stream == "ended"] == [b"closed", b"exited 5"]
    finally:
        signal.signal(signal.SIGALRM, before)
    assert heard == [frames.Signal(1, 9, True), frames.OutputClose(1, 1), frames.OutputClose(1, 2)]


def test_with_the_box_ends_what_is_waited_for(guest: FakeGuest) -> None:
    def part() -> None:
        guest.answer_hello()
        guest.hear_until(frames.Exec)
        guest.say(frames.OutputData(1, 1, b"out"))
        guest.close()

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()
        with pytest.raises(BoxLost):
            box.exec(["true"])
        assert [one.data for one in box.logs().entries if one.stream == "ended"] == [b"lost"]


def test_many_at_once(guest: FakeGuest) -> None:
    def part() -> None:
        guest.answer_hello()
        asked = [guest.hear_until(frames.Exec) for _ in range(50)]
        for one in reversed(asked):
            assert isinstance(one, frames.Exec)
            number = one.stream
            guest.say(frames.OutputData(number, 1, str(number).encode()), exited(number, status=number << 8))
            guest.say(frames.OutputEnd(number, 1), frames.OutputEnd(number, 2))
        guest.see_off()

    codes: dict[int | None, bytes] = {}

    with playing(part), FakeSandbox(guest) as box:
        box._box.ready()

        def run() -> None:
            result = box.exec(["true"])
            codes[result.exit.code] = result.stdout

        threads = [threading.Thread(target=run) for _ in range(50)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert codes == {number: str(number).encode() for number in range(1, 51)}
        assert eventually(lambda: not box._box._bridge._relays)
