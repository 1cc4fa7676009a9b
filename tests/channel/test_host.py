"""The host's side without any I/O: what a guest may say at each moment, and what becomes of anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from immure.channel import frames
from immure.channel.frames import Frame, encode
from immure.channel.host import Host
from immure.channel.limits import COMMAND_BYTES, GUEST_FRAME_BYTES, HOST_FRAME_BYTES, MAGIC, STREAMS, VERSION
from immure.channel.limits import WINDOW_BYTES as WINDOW
from immure.channel.splitter import Splitter
from immure.errors import BoxLost, ChannelError

pytestmark = pytest.mark.rootless

HELLO = frames.Hello(MAGIC, VERSION, HOST_FRAME_BYTES, STREAMS, WINDOW)
CONFIGURED = frames.Configured(None, None)
EXITED = frames.Exited(1, 0, 0, 0, 5, 6, 0)


def heard(host: Host, *said: Frame) -> list[Frame]:
    """What a host makes of these."""
    host.receive(b"".join(map(encode, said)))
    events: list[Frame] = []
    while (event := host.next_event()) is not None:
        events.append(event)
    return events


def sent(host: Host) -> list[Frame]:
    splitter = Splitter(HOST_FRAME_BYTES)
    splitter.put(host.data_to_send())
    found: list[Frame] = []
    while (body := splitter.next()) is not None:
        found.append(frames.decode_any(body))
    assert splitter.is_empty()
    return found


def ready(**limits: int) -> Host:
    host = Host(lambda: b"configuration")
    fields = {name: getattr(HELLO, name) for name in HELLO.__struct_fields__}
    heard(host, frames.Hello(**{**fields, **limits}), CONFIGURED)
    host.data_to_send()
    return host


def running(flags: int = 0) -> Host:
    host = ready()
    assert host.exec(flags, b"x") == 1
    return host


def test_hello_configuration_and_a_command() -> None:
    host = Host(lambda: b"configuration")
    assert sent(host) == [frames.Hello(MAGIC, VERSION, GUEST_FRAME_BYTES, STREAMS, WINDOW)]
    assert heard(host, HELLO) == [HELLO]
    assert sent(host) == [frames.Configure(b"configuration")]
    assert not host.is_ready
    assert heard(host, CONFIGURED) == [CONFIGURED]
    assert host.is_ready
    stream = host.exec(frames.TELL, b"command")
    assert sent(host) == [frames.Exec(1, frames.TELL, 0, 0, b"command")]
    said = [
        frames.Started(stream), frames.OutputData(stream, 1, b"out"), frames.OutputData(stream, 2, b"err"),
        frames.OutputEnd(stream, 1), frames.Exited(stream, 0, 0, 0, 1, 2, 0), frames.OutputEnd(stream, 2),
    ]  # fmt: skip
    assert heard(host, *said) == said
    assert host.exec(0, b"next") == 2


def test_a_command_asked_for_before_the_hello_follows_the_first_word() -> None:
    host = Host(lambda: b"configuration")
    assert host.takes_command(bytes(1000))
    assert not host.takes_command(bytes(GUEST_FRAME_BYTES))
    assert host.has_room_for_stream()
    stream = host.exec(frames.NO_INPUT, b"command")
    assert not host.has_room_for_stream(), "a guest may take no more than one"
    assert sent(host) == [frames.Hello(MAGIC, VERSION, GUEST_FRAME_BYTES, STREAMS, WINDOW)]
    heard(host, HELLO)
    asked = frames.Exec(stream, frames.NO_INPUT, 0, 0, b"command")
    assert sent(host) == [frames.Configure(b"configuration"), asked]
    said = [CONFIGURED, frames.OutputData(stream, 1, b"out"), EXITED]
    assert heard(host, *said) == said


def test_nothing_of_such_a_command_comes_before_the_configuration() -> None:
    host = Host(lambda: b"configuration")
    host.exec(frames.NO_INPUT, b"command")
    heard(host, HELLO)
    with pytest.raises(ChannelError) as caught:
        heard(host, EXITED)
    assert caught.value.fault == "order"


@pytest.mark.parametrize("adopts", [None, 7])
def test_a_first_word_that_waits_for_no_hello(adopts: int | None) -> None:
    host = Host(lambda: b"word", adopts=adopts, ahead=True)
    stream = host.exec(frames.NO_INPUT, b"command")
    first = frames.Configure(b"word") if adopts is None else frames.Adopt(b"word")
    hello = frames.Hello(MAGIC, VERSION, GUEST_FRAME_BYTES, STREAMS, WINDOW)
    assert sent(host) == [hello, first, frames.Exec(stream, frames.NO_INPUT, 0, 0, b"command")]
    assert stream == (adopts or 0) + 1
    assert heard(host, HELLO, CONFIGURED) == [HELLO, CONFIGURED]
    assert sent(host) == [], "it is said once"
    with pytest.raises(ChannelError):
        heard(host, CONFIGURED)


def test_one_byte_at_a_time_is_the_same() -> None:
    host = running(frames.TELL)
    said = [frames.Started(1), frames.OutputData(1, 2, bytes(5000)), EXITED, frames.OutputEnd(1, 1)]
    events: list[Frame] = []
    for byte in b"".join(map(encode, said)):
        host.receive(bytes([byte]))
        while (event := host.next_event()) is not None:
            events.append(event)
    assert events == said


def test_room_is_used_up_and_given_again() -> None:
    host = running()
    chunk = bytes(1 << 16)
    full = [frames.OutputData(1, 1, chunk)] * (WINDOW // len(chunk))
    assert heard(host, *full) == full
    # The other output has room of its own.
    heard(host, frames.OutputData(1, 2, chunk))
    host.add_room(1, 1, 10)
    assert sent(host)[-1] == frames.OutputCredit(1, 1, 10)
    heard(host, frames.OutputData(1, 1, bytes(10)))
    with pytest.raises(ChannelError) as caught:
        heard(host, frames.OutputData(1, 1, b"x"))
    assert caught.value.fault == "credit"


def test_input_is_sent_as_far_as_there_is_room() -> None:
    host = running()
    assert host.input_room(1) == WINDOW
    host.send_input(1, bytes(WINDOW))
    assert host.input_room(1) == 0
    heard(host, frames.InputCredit(1, 100))
    assert host.input_room(1) == 100
    heard(host, frames.InputClosed(1))
    assert host.input_room(1) == 0
    host.data_to_send()
    host.send_input(1, b"late")
    host.end_input(1)
    assert sent(host) == []


def test_what_comes_too_late_for_a_command_is_dropped() -> None:
    host = running()
    heard(host, EXITED, frames.OutputEnd(1, 1), frames.OutputEnd(1, 2))
    host.data_to_send()
    host.signal(1, 9, group=True)
    host.send_input(1, b"x")
    host.end_input(1)
    host.add_room(1, 1, 5)
    host.close_output(1, 2)
    host.resize(1, 80, 24)
    assert sent(host) == []
    # The control: the same for one that runs.
    host.exec(0, b"y")
    host.signal(2, 9, group=True)
    assert len(sent(host)) == 2


def test_what_was_written_before_an_exit_comes_after_it() -> None:
    said = [
        frames.Exited(1, 0, 0, 0, 0, 0, 3), frames.OutputData(1, 1, b"rest"), frames.OutputDrained(1, 1),
        frames.OutputData(1, 1, b"of others"), frames.OutputEnd(1, 2), frames.OutputEnd(1, 1),
    ]  # fmt: skip
    host = running()
    assert heard(host, *said) == said
    for again in (1, 2):
        host = running()
        heard(host, *said[:5])
        with pytest.raises(ChannelError):
            heard(host, frames.OutputDrained(1, 1 if again == 1 else 2))


def test_limits_of_the_guest_are_kept() -> None:
    host = ready(streams=2, window_bytes=5000)
    assert host.has_room_for_stream()
    host.exec(0, b"x")
    host.exec(0, b"y")
    assert not host.has_room_for_stream()
    assert host.input_room(1) == 5000
    assert ready().takes_command(bytes(COMMAND_BYTES))
    assert not ready().takes_command(bytes(COMMAND_BYTES + 1))
    assert not ready(frame_bytes=1 << 20).takes_command(bytes(1 << 20))


def test_pauses_and_pings_are_answered_by_their_numbers() -> None:
    host = ready()
    assert (host.pause(), host.pause(), host.ping(), host.ping()) == (1, 2, 1, 2)
    # A pause may be overtaken by the next one.
    assert len(heard(host, frames.Paused(2), frames.Pong(1), frames.Pong(2))) == 3


def test_the_end_is_announced_or_it_is_a_loss() -> None:
    host = ready()
    host.shut_down()
    host.shut_down()
    assert sent(host) == [frames.Shutdown()]
    assert heard(host, frames.Bye()) == [frames.Bye()]
    host.receive(b"")
    assert host.next_event() is None
    lost = ready()
    lost.receive(b"")
    with pytest.raises(BoxLost, match="closed"):
        lost.next_event()
    cut = ready()
    cut.receive(encode(frames.Bye())[:-1])
    assert cut.next_event() is None
    cut.receive(b"")
    with pytest.raises(ChannelError) as caught:
        cut.next_event()
    assert caught.value.fault == "cut"


def greeted() -> Host:
    host = Host(lambda: b"")
    heard(host, HELLO)
    return host


def over() -> Host:
    host = ready()
    heard(host, frames.Fault("a", "b", 1))
    return host


def ended() -> Host:
    host = running()
    heard(host, EXITED, frames.OutputEnd(1, 1), frames.OutputEnd(1, 2))
    return host


def exited() -> Host:
    host = running(frames.TELL)
    heard(host, EXITED)
    return host


def half_closed() -> Host:
    host = running(frames.TELL)
    heard(host, frames.Started(1), frames.OutputEnd(1, 1), frames.InputClosed(1))
    return host


NEW = "new", lambda: Host(lambda: b"")
GREETED = "greeted", greeted
READY = "ready", ready
RUNNING = "a command runs", running
#: What is said, when, and the fault that it is.
UNHEARD: list[tuple[tuple[str, Callable[[], Host]], Frame, str]] = [
    *((NEW, frame, "order") for frame in (CONFIGURED, frames.Bye(), frames.Pong(1), EXITED, frames.Fault("a", "b", 1))),
    (NEW, frames.OutputData(1, 1, b"x"), "order"),
    *((GREETED, frame, "order") for frame in (HELLO, frames.Bye(), frames.Pong(1), EXITED, frames.Started(1))),
    *((READY, frame, "order") for frame in (HELLO, CONFIGURED, frames.Bye(), frames.Pong(1), frames.Paused(1))),
    *((READY, frame, "stream") for frame in (EXITED, frames.Started(1), frames.InputCredit(1, 1))),
    (READY, frames.OutputData(1, 1, b"x"), "stream"),
    (READY, frames.Fault("a" * 4000, "b" * 97, 1), "fields"),
    (RUNNING, frames.Started(1), "order"),
    (RUNNING, frames.OutputData(2, 1, b"x"), "stream"),
    (RUNNING, frames.InputCredit(1, 1), "credit"),
    (RUNNING, frames.InputCredit(1, 2**32 - 1), "credit"),
    *(
        (("no input", lambda: running(frames.NO_INPUT)), frame, "order")
        for frame in (frames.InputCredit(1, 1), frames.InputClosed(1))
    ),
    *(
        (("a terminal", lambda: running(frames.TERMINAL)), frame, "order")
        for frame in (frames.OutputData(1, 2, b"x"), frames.OutputEnd(1, 2))
    ),
    *((("exited", exited), frame, "order") for frame in (EXITED, frames.Started(1), frames.OutputDrained(1, 1))),
    (RUNNING, frames.OutputDrained(1, 1), "order"),
    (RUNNING, frames.Exited(1, 0, 0, 0, 0, 0, 4), "order"),
    (("a terminal", lambda: running(frames.TERMINAL)), frames.Exited(1, 0, 0, 0, 0, 0, 2), "order"),
    (("half closed", half_closed), frames.Exited(1, 0, 0, 0, 0, 0, 1), "order"),
    *(
        (("half closed", half_closed), frame, "order")
        for frame in (
            frames.Started(1), frames.OutputData(1, 1, b"x"), frames.OutputEnd(1, 1),
            frames.InputCredit(1, 1), frames.InputClosed(1),
        )
    ),
    *((("ended", ended), frame, "stream") for frame in (EXITED, frames.OutputEnd(1, 1), frames.InputClosed(1))),
    *((("over", over), frame, "order") for frame in (frames.Bye(), frames.Fault("a", "b", 1), frames.Pong(1))),
    *((READY, frame, "kind") for frame in (frames.Exec(1, 0, 0, 0, b"x"), frames.Shutdown())),
]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "frame", "fault"), UNHEARD, ids=[f"{state[0]}: {type(frame).__name__}" for state, frame, _ in UNHEARD]
)
def test_what_may_not_be_said_is_one_error_and_the_end(
    state: tuple[str, Callable[[], Host]], frame: Frame, fault: str
) -> None:
    host = state[1]()
    with pytest.raises(ChannelError) as caught:
        heard(host, frame)
    assert caught.value.fault == fault
    assert caught.value.need
    assert caught.value.have
    # Whatever comes after it.
    with pytest.raises(ChannelError) as again:
        heard(host, HELLO)
    assert again.value is caught.value


def test_pongs_that_nobody_asked_for() -> None:
    host = ready()
    host.ping()
    with pytest.raises(ChannelError):
        heard(host, frames.Pong(2))
    for said in ((frames.Paused(1), frames.Paused(1)), (frames.Paused(2),)):
        host = ready()
        host.pause()
        with pytest.raises(ChannelError):
            heard(host, *said)


@pytest.mark.parametrize(
    "limits",
    [
        {"frame_bytes": 4095}, {"frame_bytes": GUEST_FRAME_BYTES - 1}, {"frame_bytes": (8 << 20) + 1},
        {"streams": 0}, {"streams": 4097}, {"window_bytes": 4095}, {"window_bytes": (4 << 20) + 1},
    ],
    ids=str,
)  # fmt: skip
def test_limits_that_there_are_not(limits: dict[str, int]) -> None:
    with pytest.raises(ChannelError, match=r"limit|room"):
        ready(**limits)


def test_an_error_shows_no_more_of_a_guest_than_is_needed() -> None:
    with pytest.raises(ChannelError) as caught:
        heard(ready(), frames.OutputData(7, 1, b"\x1b[2J" * 1000))
    assert caught.value.have == "OutputData stream=7 output=1 4000 bytes"
