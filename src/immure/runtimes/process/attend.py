"""Attends a running command: moves its output, watches its limits, and waits for its end. Blocking.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import os
import select
from time import monotonic

from immure.errors import BoxLost
from immure.runtimes.process import frames
from immure.runtimes.process.course import Course, Exit, Sink
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, hear, send

_CHUNK = 1 << 16
_NONE: frozenset[int] = frozenset()
_IN, _HUP, _OUT = select.POLLIN, select.POLLHUP, select.POLLOUT
_SIGWINCH, _EIO = 28, 5
#: What a terminal takes for the end of input.
_END_OF_INPUT = b"\x04"

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from collections.abc import Callable, Container
    from typing import Protocol

    from immure.runtimes.base import Box, Commands

    class Poller(Protocol):
        """`select.poll`, or what stands in for it in an event loop."""

        def register(self, fd: int, eventmask: int = ..., /) -> None:
            """Waits for it from now on."""

        def unregister(self, fd: int, /) -> None:
            """And no longer."""


class Stdio:
    """The standard descriptors of a command, made while its box is under way.

    `theirs` are its three; those of them in `close` are ours to close once it has them. `owned` are those that the
    box's user is to own, of which those in `late` are ours to close after that.
    """

    __slots__ = ("close", "feed", "late", "owned", "resize", "sinks", "terminal", "theirs")

    def __init__(
        self,
        theirs: tuple[int | None, int, int],
        close: list[int],
        sinks: list[Sink],
        owned: list[int] | None = None,
    ) -> None:
        self.theirs = theirs
        self.close = close
        self.sinks = sinks
        self.owned = [sink.fd for sink in sinks] if owned is None else owned
        self.late: list[int] = []
        #: They are a terminal; `resize` gives it the size of the caller's.
        self.terminal = False
        self.resize: Callable[[], None] | None = None
        #: Standard input to move: (from, to).
        self.feed: tuple[int, int] | None = None

    def own(self, uid: int, gid: int) -> None:
        """Gives pipes or a terminal of ours to a box's user, so that it can open them anew as /dev/stdout."""
        for fd in self.owned:
            os.fchown(fd, uid, gid)

    def given(self) -> None:
        """Closes what only the command is to hold."""
        while self.close:
            os.close(self.close.pop())

    def settled(self) -> None:
        """Closes what was kept to be given to the box's user."""
        while self.late:
            os.close(self.late.pop())

    def done(self) -> None:
        """Closes everything of ours."""
        for fds in (self.close, self.late):
            while fds:
                os.close(fds.pop())
        for sink in self.sinks:
            if sink.fd >= 0:
                sink.close()


class Asked(Course):
    """A command whose end is told on a socket, as by a stem."""

    def __init__(self, box: Commands, asker: Socket, sinks: list[Sink], request: Request) -> None:
        super().__init__(box, sinks, request)
        self.asker = asker
        #: Streams of which something that was written before the exit is still under way.
        self._draining: set[int] | frozenset[int] = _NONE

    def signal(self, number: int, *, group: bool) -> None:
        """Sends a signal to the command, or to its process group."""
        message = frames.header(frames.SIGNAL, frames.GROUP if group else 0) + number.to_bytes(4, "little")
        try:
            send(self.asker, message, [])
        except BoxLost:
            pass

    def hear_end(self) -> bool:
        """Takes what the socket has to say. True once nothing more will come of it. Raises BoxLost."""
        message = hear(self.asker)
        with self._deciding:
            self.over = True
        kind = frames.kind_of(message) if message else 0
        if kind == frames.EXITED:
            self.exit = Exit(message)
            if self.exit.draining:
                self._draining = set(range(len(self.sinks)))
        elif kind == frames.DRAINED:
            self._draining -= {frames.u32(message, 8)}
        else:
            # Behind a channel the connection ends once everything has been told.
            lost = self.exit is None or bool(self._draining)
            self._draining = _NONE
            if lost and self._is_lost():
                raise self.box.failure or BoxLost(
                    "the box ended under the command", have="its stem closed the connection"
                )
        return not self._draining

    def is_draining(self, left: Container[int]) -> bool:
        """Whether something that was written before the exit may still come by one of these descriptors."""
        return bool(self._draining) and any(self.sinks[one].fd in left for one in self._draining)

    def _is_lost(self) -> bool:
        """Whether an end of the connection is one that nobody had asked for."""
        return not (self.timed_out or self.flooded or self.box.ran_out())


class Attendance(Asked):
    """A command whose output comes by descriptors, from its start to its end, or in a one-shot box to that of the box.

    It waits for nothing itself: whoever drives it, such as `run`, waits for what it registers, and says what is ready.
    """

    def __init__(
        self,
        box: Commands,
        asker: Socket,
        stdio: Stdio,
        request: Request,
        *,
        own: Box | None = None,
        wakeup: int | None = None,
    ) -> None:
        """`own` is the box where it is there for this command alone, and ends with it."""
        super().__init__(box, asker, stdio.sinks, request)
        self._own = own
        #: Signals to pass on arrive as bytes on this descriptor.
        self.wakeup = wakeup
        self._feed = stdio.feed
        self._terminal, self._resize = stdio.terminal, stdio.resize
        self._feeding = b""
        self._open: dict[int, Sink] = {}

    def run(self) -> None:
        """Drives it, blocking. Raises BoxLost where the spawner is gone. On any exception the caller ends the box."""
        poll = select.poll()
        self.register(poll)
        while not self.finished():
            if not self._open and self.wakeup is None and self._feed is None and self.wait_ms() is None:
                # Nothing but the end is left to come.
                self._hear_end()
                continue
            wait_ms = self.wait_ms()
            for fd, event in poll.poll(wait_ms):
                self.handle(poll, fd, event)
            if wait_ms is not None:
                self.check_time()

    def see_through(self, stdio: Stdio, watched: Callable[[Attendance, float | None], None] | None) -> None:
        """Runs it, and closes its streams. `watched` has it ended in time where its attendant is held up."""
        if watched is not None and self.timeout_s is not None:
            watched(self, self.timeout_s)
        try:
            self.run()
        finally:
            stdio.done()
            self.leave()

    def register(self, poll: Poller) -> None:
        """Says what is to be waited for; it changes as things come."""
        self._open = {sink.fd: sink for sink in self.sinks if sink.fd >= 0}
        for fd in self._open:
            # What there is to read, a box can take away again, and what is typed it may not take: whoever waited for
            # that would miss the deadline.
            os.set_blocking(fd, False)
            poll.register(fd, _IN)
        # The end of a one-shot box comes with its owner's socket; the exit is then there to be read.
        end = self._own.owner if self._own is not None else self.asker
        poll.register(end.fileno(), _IN)
        if self.wakeup is not None:
            poll.register(self.wakeup, _IN)
        if self._feed is not None:
            os.set_blocking(self._feed[1], False)
            poll.register(self._feed[0], _IN)

    def handle(self, poll: Poller, fd: int, event: int) -> None:
        """Takes what is ready on one descriptor."""
        if fd in self._open:
            # A pipe that says no more than that its writers are gone is empty.
            if event == _HUP or not self._move(self._open[fd]):
                poll.unregister(fd)
                del self._open[fd]
        elif fd == self.wakeup:
            self.forward_signals()
        elif self._feed is not None and fd in self._feed:
            self._move_input(poll, fd, event)
        elif self._hear_end():
            poll.unregister(fd)

    def finished(self) -> bool:
        """Whether the command, or the one-shot box, has ended and its output is all here."""
        if not self._ended():
            return False
        if self.is_draining(self._open):
            return False
        # What it left in the pipes is its output. What its orphans will write later is not waited for, nor is the end
        # of a pipe that others hold open: a process that was forked from ours, or one that the box gave it to.
        return not self._open or not _readable(list(self._open))

    def _ended(self) -> bool:
        return self._own.ended is not None if self._own is not None else self.over

    def stop(self) -> None:
        """Ends the command, and in a one-shot box, or where the command does not end, everything."""
        if self._own is not None:
            self._own.kill()
            self._last_call = monotonic() + self._grace_s
        else:
            super().stop()

    def forward_signals(self) -> None:
        """Passes on what arrived on the wake-up descriptor. A terminal's own signals go to the whole group."""
        assert self.wakeup is not None
        for number in os.read(self.wakeup, 64):
            if number == _SIGWINCH and self._resize is not None:
                self._resize()
            else:
                self.signal(number, group=number in (1, 2, 3))

    def _hear_end(self) -> bool:
        """True once the command, or the one-shot box, has ended."""
        if self._own is None:
            return self.hear_end()
        self._own.hear_owner()
        return self._own.ended is not None and self.hear_end()

    def _is_lost(self) -> bool:
        return self._own is None and super()._is_lost()

    def note(self, sink: Sink, chunk: bytes, *, bounded: bool) -> bytes:
        """Counts what somebody else has read of a stream, and gives what of it is within the limit of output."""
        if self.flooded:
            return b""
        sink.count += len(chunk)
        if bounded and self.room is not None:
            if len(chunk) > self.room:
                sink.truncated = self.flooded = True
                chunk = chunk[: self.room]
                self.stop()
            self.room -= len(chunk)
        self._tell(sink, chunk)
        return chunk

    def _move(self, sink: Sink) -> bool:
        ended = self._ended()
        chunk = read_stream(sink.fd, min(_CHUNK, sink.late))
        if chunk is None:
            return True
        if not chunk:
            return False
        if ended:
            sink.late -= len(chunk)
        try:
            self.keep(sink, chunk)
        except BrokenPipeError:
            # Nobody reads ours any more: the command is to learn it from its own.
            sink.close()
            return False
        return True

    def _move_input(self, poll: Poller, fd: int, event: int) -> None:
        assert self._feed is not None
        source, target = self._feed
        if fd == source and not self._feeding:
            self._feeding = _read_or_end(source)
            poll.unregister(source)
            if not self._feeding:
                return self._end_input()
            poll.register(target, _OUT)
            return None
        try:
            if event & ~_OUT:
                raise BrokenPipeError
            self._feeding = self._feeding[os.write(target, self._feeding) :]
        except BlockingIOError:
            return None
        except OSError:
            # The command has closed its standard input; ours stays as it is.
            poll.unregister(target)
            return self._end_input()
        if not self._feeding:
            poll.unregister(target)
            poll.register(source, _IN)
        return None

    def _end_input(self) -> None:
        assert self._feed is not None
        if self._terminal:
            try:
                os.write(self._feed[1], _END_OF_INPUT)
            except OSError:
                # It is gone.
                pass
        os.close(self._feed[1])
        self._feed = None


def read_stream(fd: int, size: int) -> bytes | None:
    """A chunk of a pipe or terminal; nothing at its end, which a terminal tells by EIO; None where none is there."""
    try:
        return os.read(fd, size)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno == _EIO:
            return b""
        raise


def _readable(fds: list[int]) -> bool:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, _IN)
    return any(event & _IN for _, event in poll.poll(0))


def _read_or_end(fd: int) -> bytes:
    """A chunk of our own standard input; nothing where it is a folder, or a terminal that has gone."""
    try:
        return os.read(fd, _CHUNK)
    except OSError:
        return b""
