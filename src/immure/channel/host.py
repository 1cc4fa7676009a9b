"""The host's side of a channel, without any I/O: bytes of the guest go in and events come out; calls go in and bytes
come out. Everything that a guest says is checked against what it may say at that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NoReturn

from immure.channel import frames
from immure.channel.frames import Frame, FromGuest
from immure.channel.limits import (
    COMMAND_BYTES,
    FAULT_BYTES,
    FRAME_BYTES_RANGE,
    GUEST_FRAME_BYTES,
    HOST_FRAME_BYTES,
    MAGIC,
    STREAMS,
    STREAMS_RANGE,
    VERSION,
    WINDOW_BYTES,
    WINDOW_BYTES_RANGE,
)
from immure.channel.splitter import Splitter
from immure.errors import BoxLost, ChannelError

#: What a frame holds beside a chunk or a command.
_FRAME_OVERHEAD = 64
_OUTPUTS: tuple[frames.Output, ...] = (1, 2)


def own_hello() -> bytes:
    """What a host says first."""
    return frames.encode(frames.Hello(MAGIC, VERSION, GUEST_FRAME_BYTES, STREAMS, WINDOW_BYTES))


def hello_of_guest() -> bytes:
    """What our own init says first."""
    return frames.encode(frames.Hello(MAGIC, VERSION, HOST_FRAME_BYTES, STREAMS, WINDOW_BYTES))


class _Stream:
    """What the guest may still say of one command."""

    __slots__ = ("draining", "exited", "input_credit", "outputs", "started", "tells", "terminal")

    def __init__(self, flags: int, input_credit: int) -> None:
        self.tells = bool(flags & frames.TELL)
        self.started = False
        self.exited = False
        #: Outputs of which something that was written before the exit is still to come.
        self.draining: set[int] = set()
        self.terminal = bool(flags & frames.TERMINAL)
        #: How much of the input the guest has room for; None where there is no input any more.
        self.input_credit: int | None = None if flags & frames.NO_INPUT else input_credit
        #: How much we have room for, of each output that is not at its end.
        self.outputs = dict.fromkeys((1,) if self.terminal else (1, 2), WINDOW_BYTES)


class Host:
    """`receive` takes what has come, `next_event` gives what it means, and `data_to_send` what is to be sent.

    Every call may be made at any time after `Configured`, and `exec` of commands without input before: those follow the
    first word. What comes too late for a command that has ended is dropped.
    Once `next_event` has raised, the guest is not to be trusted with anything more, and it raises the same again.
    """

    def __init__(
        self,
        first_word: Callable[[], bytes],
        *,
        adopts: int | None = None,
        greeted: bool = False,
        ahead: bool = False,
    ) -> None:
        """`first_word` gives, once the guest has greeted, its configuration, or the moment of one that is adopted:
        `adopts` is the number of the last stream of whoever had it before. `greeted`: `own_hello` was said already.
        `ahead`: the first word does not wait for the guest's hello, which is known to be ours.
        """
        self._first_word = first_word
        self._adopts = adopts
        #: What is said after the guest was told to park, until it goes on.
        self._held: list[bytes] | None = None
        self._is_parked = False
        #: Commands that are to follow the first word, until that is said.
        self._waiting: list[bytes] = []
        self._out: list[bytes] = []
        self._splitter = Splitter(GUEST_FRAME_BYTES)
        self._streams: dict[int, _Stream] = {}
        self._last_stream = adopts or 0
        self._pings: deque[int] = deque()
        self._ping = self._pause = self._paused = 0
        self._shutting_down = False
        self._at_end = False
        self._failure: BoxLost | None = None
        self._state = "new"
        #: What the guest takes.
        self._most_streams = self._window_bytes = self._frame_bytes = 0
        if not greeted:
            self._out.append(own_hello())
        self._began = False
        if ahead:
            self._begin()

    # Bytes.

    def data_to_send(self) -> bytes:
        """What is to be sent now, once."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def receive(self, data: bytes | memoryview) -> None:
        """Takes what has come; nothing means the end of the stream."""
        if data:
            self._splitter.put(data)
        else:
            self._at_end = True

    def next_event(self) -> FromGuest | None:
        """What has happened next; None until more comes.

        Raises ChannelError for what the guest may not say, and BoxLost at an end that was not announced.
        """
        if self._failure is not None:
            raise self._failure
        try:
            return self._next()
        except BoxLost as error:
            self._failure = error
            raise

    def _next(self) -> FromGuest | None:
        body = self._splitter.next()
        if body is None:
            return self._check_end()
        frame = frames.decode(body)
        self._check(frame)
        return frame

    def _check_end(self) -> None:
        if not self._at_end or self._state == "over":
            return
        if not self._splitter.is_empty():
            raise ChannelError("cut", need="whole frames", have="the end of the stream within one")
        raise BoxLost(
            "the box has ended", need="a box in use", have="its channel was closed", hint="make a new Sandbox"
        )

    # Calls.

    @property
    def is_ready(self) -> bool:
        """Whether commands can be asked for."""
        return self._state == "ready"

    @property
    def is_over(self) -> bool:
        """Whether the guest has said its last word."""
        return self._state == "over"

    def takes_command(self, command: bytes) -> bool:
        """Whether it is short enough; the kernel takes none that is not."""
        frame_bytes = self._frame_bytes or GUEST_FRAME_BYTES
        return len(command) <= min(COMMAND_BYTES, frame_bytes - _FRAME_OVERHEAD)

    def has_room_for_stream(self) -> bool:
        """Whether one more command can be under way."""
        return len(self._streams) < (self._most_streams or STREAMS_RANGE[0])

    def exec(self, flags: int, command: bytes, *, columns: int = 0, rows: int = 0) -> int:
        """Asks for a command, and gives the number of its stream. No number is used twice."""
        # How much input there is room for is not known before the hello.
        assert self._window_bytes or flags & frames.NO_INPUT
        self._last_stream += 1
        self._streams[self._last_stream] = _Stream(flags, self._window_bytes)
        asked = frames.Exec(self._last_stream, flags, columns, rows, command)
        if self._began:
            self._send(asked)
        else:
            self._waiting.append(frames.encode(asked))
        return self._last_stream

    def input_room(self, stream: int) -> int:
        """How much of standard input the guest has room for."""
        found = self._streams.get(stream)
        return 0 if found is None else found.input_credit or 0

    def send_input(self, stream: int, data: bytes) -> None:
        """Sends what there is room for, in one chunk at most."""
        found = self._streams.get(stream)
        if found is None or found.input_credit is None or not data:
            return
        assert len(data) <= found.input_credit
        found.input_credit -= len(data)
        self._send(frames.Input(stream, data))

    def end_input(self, stream: int) -> None:
        """Nothing more will be sent; a terminal is hung up."""
        found = self._streams.get(stream)
        if found is not None and found.input_credit is not None:
            self._send(frames.InputEnd(stream))

    def add_room(self, stream: int, output: frames.Output, count: int) -> None:
        """So much of an output was passed on, and as much more may come."""
        found = self._streams.get(stream)
        if found is not None and output in found.outputs:
            found.outputs[output] += count
            self._send(frames.OutputCredit(stream, output, count))

    def close_output(self, stream: int, output: frames.Output) -> None:
        """Nobody reads it any more: the command is to learn it."""
        found = self._streams.get(stream)
        if found is not None and output in found.outputs:
            self._send(frames.OutputClose(stream, output))

    def signal(self, stream: int, number: int, *, group: bool) -> None:
        """Sends a signal to a command, or to its process group."""
        found = self._streams.get(stream)
        if found is not None and not found.exited:
            self._send(frames.Signal(stream, number, group))

    def resize(self, stream: int, columns: int, rows: int) -> None:
        """Tells a command's terminal its size."""
        if stream in self._streams:
            self._send(frames.Resize(stream, columns, rows))

    def pause(self) -> int:
        """Has everything stop; `Paused` with the number that this gives says when it has."""
        self._pause += 1
        self._send(frames.Pause(self._pause))
        return self._pause

    def resume(self) -> None:
        """Lets everything go on."""
        self._send(frames.Resume())

    def ping(self) -> int:
        """Asks for a `Pong` with the number that this gives."""
        self._ping += 1
        self._pings.append(self._ping)
        self._send(frames.Ping(self._ping))
        return self._ping

    def shut_down(self) -> None:
        """Has everything end; `Bye` says when it has."""
        self.unpark()
        if not self._shutting_down:
            self._shutting_down = True
            self._send(frames.Shutdown())

    @property
    def last_stream(self) -> int:
        """The number of the newest stream."""
        return self._last_stream

    @property
    def is_parked(self) -> bool:
        """Whether the guest says nothing more, and this moment of it may be copied."""
        return self._is_parked

    def park(self) -> None:
        """Has the guest say nothing more: `Parked` is its last word. What is said to it is held until `unpark`."""
        if self._held is None:
            self._send(frames.Park())
            self._held = []

    def unpark(self) -> None:
        """Lets a guest that is parked go on."""
        if self._held is not None:
            held, self._held, self._is_parked = self._held, None, False
            self._send(frames.Unpark())
            self._out += held

    def _send(self, frame: Frame) -> None:
        out = self._out if self._held is None else self._held
        out.append(frames.encode(frame))

    # What a guest may say.

    def _check(self, frame: FromGuest) -> None:
        match frame:
            case frames.Hello():
                self._greeted(frame)
            case _ if self._state in ("new", "over"):
                self._refuse("order", "a hello first" if self._state == "new" else "nothing after the last word", frame)
            case frames.Fault(step, thing):
                if len(step) + len(thing) > FAULT_BYTES:
                    self._refuse("fields", f"a reason of at most {FAULT_BYTES} characters", frame)
                self._state = "over"
            case frames.Standing() if self._adopts is not None and self._state == "greeted":
                self._adopt(frame, self._adopts)
            case frames.Configured():
                if self._state != "greeted":
                    self._refuse("order", "one answer to the configuration", frame)
                self._state = "ready"
            case _ if self._state != "ready":
                self._refuse("order", "the answer to the configuration", frame)
            case _ if self._is_parked:
                self._refuse("order", "nothing of a guest that is parked", frame)
            case frames.Parked():
                if self._held is None:
                    self._refuse("order", "a guest that speaks until it is told to park", frame)
                self._is_parked = True
            case frames.Standing():
                self._refuse("order", "what stands before the answer to the adoption", frame)
            case frames.Paused(number):
                if not self._paused < number <= self._pause:
                    self._refuse("order", "the number of a pause", frame)
                self._paused = number
            case frames.Pong(number):
                if not self._pings or self._pings.popleft() != number:
                    self._refuse("order", "the number of the ping", frame)
            case frames.Bye():
                if not self._shutting_down:
                    self._refuse("order", "a guest that stays until it is told to end", frame)
                self._state = "over"
            case _:
                self._check_of_stream(frame)

    def _greeted(self, hello: frames.Hello) -> None:
        if self._state != "new":
            self._refuse("order", "one hello", hello)
        limits = (
            (hello.frame_bytes, FRAME_BYTES_RANGE),
            (hello.streams, STREAMS_RANGE),
            (hello.window_bytes, WINDOW_BYTES_RANGE),
        )
        for value, (least, most) in limits:
            if not least <= value <= most:
                self._refuse("fields", f"a limit from {least} to {most}", hello)
        if hello.frame_bytes < GUEST_FRAME_BYTES:
            self._refuse("fields", f"room for frames of {GUEST_FRAME_BYTES} bytes", hello)
        self._frame_bytes, self._window_bytes = hello.frame_bytes, hello.window_bytes
        self._most_streams = min(STREAMS, hello.streams)
        self._state = "greeted"
        if not self._began:
            self._begin()

    def _begin(self) -> None:
        told = self._first_word()
        self._send(frames.Configure(told) if self._adopts is None else frames.Adopt(told))
        self._out += self._waiting
        self._waiting.clear()
        self._began = True

    def _adopt(self, frame: frames.Standing, last: int) -> None:
        outputs: list[frames.Output] = [output for output in _OUTPUTS if frame.outputs & output]
        terminal = bool(frame.flags & frames.TERMINAL)
        if frame.stream > last or frame.stream in self._streams or len(self._streams) >= self._most_streams:
            self._refuse("stream", f"each of the streams up to {last} once", frame)
        if frame.flags & ~frames.TERMINAL or frame.outputs > (1 if terminal else 3):
            self._refuse("fields", "what a command can have", frame)
        if frame.input_room > self._window_bytes:
            self._refuse("credit", f"room for {self._window_bytes} bytes at most", frame)
        if frame.exited and not outputs:
            self._refuse("order", "a command that is not over", frame)
        made = self._streams[frame.stream] = _Stream(frame.flags, frame.input_room)
        made.input_credit = frame.input_room or None
        made.outputs = dict.fromkeys(outputs, WINDOW_BYTES)
        made.exited = frame.exited

    def _check_of_stream(
        self,
        frame: frames.Started
        | frames.OutputData
        | frames.OutputEnd
        | frames.InputCredit
        | frames.InputClosed
        | frames.OutputDrained
        | frames.Exited,
    ) -> None:
        stream = self._streams.get(frame.stream)
        if stream is None:
            self._refuse("stream", "a command under way", frame)
        match frame:
            case frames.OutputData(_, output, data):
                room = stream.outputs.get(output)
                if room is None:
                    self._refuse("order", "an output that is not at its end", frame)
                if len(data) > room:
                    self._refuse("credit", f"at most {room} bytes", frame)
                stream.outputs[output] = room - len(data)
            case frames.OutputEnd(_, output):
                if stream.outputs.pop(output, None) is None:
                    self._refuse("order", "an output that is not at its end", frame)
                stream.draining.discard(output)
            case frames.OutputDrained(_, output):
                if output not in stream.draining:
                    self._refuse("order", "an output that the exit has named", frame)
                stream.draining.discard(output)
            case frames.InputCredit(_, count):
                if stream.input_credit is None:
                    self._refuse("order", "an input that is not closed", frame)
                if stream.input_credit + count > self._window_bytes:
                    self._refuse("credit", f"room for {self._window_bytes} bytes at most", frame)
                stream.input_credit += count
            case frames.InputClosed():
                if stream.input_credit is None:
                    self._refuse("order", "an input that is not closed", frame)
                stream.input_credit = None
            case frames.Started():
                if not stream.tells or stream.started or stream.exited:
                    self._refuse("order", "one start, where it was asked for", frame)
                stream.started = True
            case frames.Exited():
                if stream.exited:
                    self._refuse("order", "one exit", frame)
                stream.exited = True
                stream.draining = {output for output in (1, 2) if frame.draining & output}
                if frame.draining > 3 or not stream.draining <= stream.outputs.keys():
                    self._refuse("order", "outputs that are not at their end", frame)
        if stream.exited and not stream.outputs:
            del self._streams[frame.stream]

    def _refuse(self, fault: str, need: str, frame: Frame) -> NoReturn:
        raise ChannelError(fault, need=need, have=_shown(frame))


def _shown(frame: Frame) -> str:
    """A frame as an error names it: without what it carries."""
    name = type(frame).__name__
    numbers = [
        f"{field}={value}" for field in frame.__struct_fields__ if isinstance(value := getattr(frame, field), int)
    ]
    data = getattr(frame, "data", None)
    size = [f"{len(data)} bytes"] if isinstance(data, bytes) else []
    return " ".join([name, *numbers, *size])
