"""What a host says and asks for before it has heard its guest: the same comes of it, and no guest gains by it."""

from __future__ import annotations

import msgspec
import pytest

from immure import BoxLost
from immure.channel import frames
from immure.channel.frames import Frame
from immure.errors import ChannelError, SetupFailed
from immure.runtimes.guest.attested import attestation

from .fakes import CONFIGURED, HELLO, FakeGuest, playing

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60), pytest.mark.usefixtures("nothing_stays")]

ITEMS = {"uname": b"Linux", "attempt/network": bytes(4)}
ENDS = [frames.Exited(1, 0, 0, 0, 1000, 64, 0), frames.OutputEnd(1, 1), frames.OutputEnd(1, 2)]
STORY: list[Frame] = [frames.OutputData(1, 1, msgspec.msgpack.encode(ITEMS)), *ENDS]
KILLED: list[Frame] = [frames.Exited(1, 31, 0, 0, 1000, 64, 0), *ENDS[1:]]


@pytest.mark.parametrize("ahead", [False, True], ids=["the hello is waited for", "nothing is waited for"])
def test_an_attestation_that_is_asked_for_before_the_hello(guest: FakeGuest, ahead: bool) -> None:
    """Of a guest that is heard first, and where the host does not wait, of one that hears everything first."""

    def part() -> None:
        if ahead:
            guest.hear_until(frames.Exec)
        guest.say(HELLO)
        if not ahead:
            guest.hear_until(frames.Exec)
        guest.say(CONFIGURED, *STORY)
        guest.hear_until(frames.Shutdown)
        guest.say(frames.Bye())

    with playing(part):
        box = guest.box(ahead=ahead)
        try:
            with attestation(box, "/outside") as attesting:
                assert box.ready() == {}
                assert attesting.items() == ITEMS
        finally:
            box.close()


def test_one_that_a_filter_ends_is_asked_for_again(guest: FakeGuest) -> None:
    again = [type(one)(2, *(getattr(one, name) for name in one.__struct_fields__[1:])) for one in STORY]

    def part() -> None:
        guest.say(HELLO)
        first = guest.hear_until(frames.Exec)
        guest.say(CONFIGURED, *KILLED)
        second = guest.hear_until(frames.Exec)
        assert isinstance(first, frames.Exec)
        assert isinstance(second, frames.Exec)
        assert (b"\0apart\0" in first.command, b"\0apart\0" in second.command) == (False, True)
        guest.say(*again)
        guest.hear_until(frames.Shutdown)
        guest.say(frames.Bye())

    with playing(part):
        box = guest.box()
        try:
            with attestation(box, "/outside") as attesting:
                box.ready()
                assert attesting.items() == ITEMS
        finally:
            box.close()


def test_one_that_is_ended_each_time_is_none(guest: FakeGuest) -> None:
    """It ends: nobody asks a third time."""

    def part() -> None:
        guest.say(HELLO)
        guest.hear_until(frames.Exec)
        guest.say(CONFIGURED, *KILLED)
        guest.hear_until(frames.Exec)
        guest.say(frames.Exited(2, 9, 0, 0, 0, 0, 0), frames.OutputEnd(2, 1), frames.OutputEnd(2, 2))
        guest.hear_until(frames.Shutdown)
        guest.say(frames.Bye())

    with playing(part):
        box = guest.box()
        try:
            with attestation(box, "/outside") as attesting, pytest.raises(BoxLost, match="does not attest"):
                attesting.items()
        finally:
            box.close()


LIES: dict[str, list[Frame | bytes]] = {
    "an end before its hello": [],
    "an end after its hello": [HELLO],
    "an answer before the configuration's": [HELLO, *STORY],
    "what the command says before the hello": [*STORY],
    "another command than was asked for": [HELLO, CONFIGURED, frames.Exited(2, 0, 0, 0, 0, 0, 0)],
    "no MessagePack": [HELLO, b"\x02\0\0\0\xc1\xc1"],
}


@pytest.mark.parametrize("ahead", [False, True], ids=["waits", "ahead"])
@pytest.mark.parametrize("lie", LIES)
def test_a_guest_that_lies(guest: FakeGuest, lie: str, ahead: bool) -> None:
    guest.say(*LIES[lie])
    if "end" in lie:
        guest.close()
    box = guest.box(ahead=ahead)
    try:
        # It may be over before it is asked.
        with pytest.raises((ChannelError, BoxLost)), attestation(box, "/outside") as attesting:
            box.ready()
            attesting.items()
        assert box._bridge.greeted.wait(10), "nobody waits for a guest that is gone"
        assert not box.alive()
    finally:
        box.close()


def test_a_guest_that_can_not_do_what_it_is_told(guest: FakeGuest) -> None:
    guest.say(HELLO, frames.Fault("landlock", "", 95))
    box = guest.box(ahead=True)
    try:
        with pytest.raises(SetupFailed) as caught, attestation(box, "/outside"):
            box.ready()
        assert (caught.value.step, caught.value.errno) == ("landlock", 95)
    finally:
        box.close()
