"""A command over a channel whose output is kept by who waits for it: it needs no descriptor."""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import TYPE_CHECKING

from immure.channel import frames as channel
from immure.channel.limits import WINDOW_BYTES
from immure.channel.pump import Pump
from immure.errors import BoxLost
from immure.runtimes.process.course import Course, Exit, Sink
from immure.runtimes.process.request import Request

if TYPE_CHECKING:
    from immure.runtimes.base import Commands

_SIGKILL = 9
_OUTPUTS: tuple[channel.Output, ...] = (1, 2)


class Direct(Course):
    """What comes of it is put down by whoever steps the pump, under its lock, and taken up by who waits in `run`."""

    def __init__(self, box: Commands, pump: Pump, request: Request, command: bytes) -> None:
        super().__init__(box, [Sink(-1, None), Sink(-1, None)], request)
        self._pump = pump
        #: As it was asked for.
        self.command = command
        self._stream = 0
        self._done: Callable[[int], None] | None = None
        #: The guest has said that it ended, and how.
        self.exited = False
        self._ended: Exit | None = None
        #: Outputs that are not at their end, and those of which something is to come that was written before the exit.
        self._open = set(_OUTPUTS)
        self._draining: set[int] = set()
        self._arrived = [bytearray(), bytearray()]
        self._taken = [0, 0]
        self._lost = self._unwanted = False
        #: Released when there is something to be taken up.
        self._bell = _thread.allocate_lock()
        self._bell.acquire()

    # Of who steps the pump.

    def begin(self, stream: int, done: Callable[[int], None]) -> None:
        """It is under way. `done` is called with its stream when nothing more is to come of it."""
        self._stream, self._done = stream, done

    def refuse(self, errno: int, step: int) -> None:
        """It could not even be asked for."""
        self._end(Exit.of(0, errno, step, 0, 0))

    def hear(self, event: channel.FromGuest) -> None:
        """Takes what the guest says of it."""
        match event:
            case channel.OutputData(_, output, data):
                if not self._unwanted:
                    self._arrived[output - 1] += data
                    self._ring()
            case channel.Exited():
                self.exited = True
                self._draining = {output for output in self._open if event.draining & output}
                end = Exit.of(event.status, event.errno, event.step, event.cpu_us, event.memory_peak_kib)
                if self._draining:
                    self._ended = end
                else:
                    self._end(end)
            case channel.OutputDrained(_, output):
                self._drained(output)
            case channel.OutputEnd(_, output):
                self._open.discard(output)
                self._drained(output)
            case _:
                pass
        if self.exited and not self._open and self._done is not None:
            self._done(self._stream)

    def close(self) -> None:
        """Nothing more will come of it."""
        self._lost = True
        self._ring()

    def _drained(self, output: int) -> None:
        if self._draining:
            self._draining.discard(output)
            if not self._draining and self._ended is not None:
                self._end(self._ended)

    def _end(self, how: Exit) -> None:
        self.exit = how
        self._ring()

    def _ring(self) -> None:
        if self._bell.locked():
            self._bell.release()

    # Of who waits.

    def run(self) -> None:
        """As `Course.run`: all that was written before the end is here then."""
        while not self._take_up():
            wait_ms = self.wait_ms()
            self._bell.acquire(True, -1 if wait_ms is None else wait_ms / 1000)
            if wait_ms is not None and self.exit is None:
                self.check_time()

    def _take_up(self) -> bool:
        """True once its end is here."""
        if not (self._lost or self.exit is not None or any(self._arrived)):
            return False
        with self._pump.lock:
            arrived, self._arrived = self._arrived, [bytearray(), bytearray()]
            over, lost = self.exit is not None, self._lost
            if not over:
                self._tell_room(arrived)
        for sink, chunk in zip(self.sinks, arrived, strict=True):
            if chunk:
                self.keep(sink, bytes(chunk))
        if over:
            with self._deciding:
                self.over = True
        if over or not lost:
            return over
        if not (self.timed_out or self.flooded or self.box.ran_out()):
            raise self.box.failure or BoxLost(
                "the box ended under the command", have="its channel is closed", hint="make a new Sandbox"
            )
        return True

    def _tell_room(self, arrived: list[bytearray]) -> None:
        for output in _OUTPUTS:
            self._taken[output - 1] += len(arrived[output - 1])
            if self._taken[output - 1] >= WINDOW_BYTES // 2:
                self._pump.host.add_room(self._stream, output, self._taken[output - 1])
                self._taken[output - 1] = 0
        self._pump.flush()

    def leave(self) -> None:
        """Nobody waits for it any more: it is ended, unless it has, and what its orphans write is not wanted."""
        super().leave()
        if self.exited and not self._open:
            return
        with self._pump.lock:
            self._unwanted = True
            if not self.exited:
                self._pump.host.signal(self._stream, _SIGKILL, group=True)
            for output in _OUTPUTS:
                self._pump.host.close_output(self._stream, output)
            self._pump.flush()

    def signal(self, number: int, *, group: bool) -> None:
        """As `Course.signal`."""
        with self._pump.lock:
            if not self.exited:
                self._pump.host.signal(self._stream, number, group=group)
                self._pump.flush()
