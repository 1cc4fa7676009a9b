"""A command of which nothing is wanted but its output and its end: what `exec` is most of the time.

What `Attendance` does for all kinds of streams, in as few steps as it takes for two pipes. Standard library only, and
little of that: this is on the hot path.
"""

from __future__ import annotations

import os
import select

from immure.runtimes.process.attend import Asked, read_stream
from immure.runtimes.process.course import Sink
from immure.runtimes.process.pipes import make_ahead, take_pipes
from immure.runtimes.process.spawner import Socket, hang_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from immure.runtimes.process.request import Request
    from immure.runtimes.process.stem import Stem

_CHUNK = 1 << 16
_IN, _HUP = select.POLLIN, select.POLLHUP


def capture(box: Stem, request: Request, owner: tuple[int, int] | None) -> Captured:
    """Asks for it. Its pipes are those of `owner`, so that the command can open them anew. Raises BoxLost."""
    out, their_out, err, their_err = pipes = take_pipes()
    try:
        if owner is not None:
            os.fchown(out, *owner)
            os.fchown(err, *owner)
        asker = box.start(request.payload(), (None, their_out, their_err), hold=True)
    except BaseException:
        for fd in pipes:
            os.close(fd)
        # For the next one all the same: these were taken.
        make_ahead()
        raise
    os.close(their_out)
    os.close(their_err)
    return Captured(box, asker, out, err, request)


class Captured(Asked):
    """Its own pipes, and the socket on which its end is told. `leave` lets go of them."""

    def __init__(self, box: Stem, asker: Socket, out: int, err: int, request: Request) -> None:
        super().__init__(box, asker, [Sink(out, None), Sink(err, None)], request)

    def run(self) -> None:
        """As `Course.run`."""
        # The command is under way: this is done beside it.
        make_ahead()
        poll, end = select.poll(), self.asker.fileno()
        left = {sink.fd: sink for sink in self.sinks}
        for fd in left:
            # What there is to read, a box can take away again.
            os.set_blocking(fd, False)
            poll.register(fd, _IN)
        poll.register(end, _IN)
        wait_ms, last_look = self.wait_ms(), False
        while True:
            moved = False
            for fd, event in poll.poll(wait_ms):
                if fd == end:
                    if self.hear_end():
                        poll.unregister(end)
                # A pipe that says no more than that its writers are gone is empty.
                elif event != _HUP and self._move(left[fd]):
                    moved = True
                else:
                    poll.unregister(fd)
                    del left[fd]
            if self.over and not self.is_draining(left):
                # What it left in the pipes is its output. What its orphans will write later is not waited for, nor is
                # the end of a pipe that others hold open.
                if not left or (last_look and not moved):
                    return
                wait_ms, last_look = 0, True
            elif self.is_timed():
                self.check_time()
                wait_ms = self.wait_ms()

    def _move(self, sink: Sink) -> bool:
        """False at the end of the pipe."""
        ended = self.over
        chunk = read_stream(sink.fd, min(_CHUNK, sink.late))
        if not chunk:
            return chunk is None
        if ended:
            sink.late -= len(chunk)
        self.keep(sink, chunk)
        return True

    def leave(self) -> None:
        """It is ended, unless it has."""
        for sink in self.sinks:
            sink.close()
        # Not before: closing may wait for a command whose time is over.
        super().leave()
        if self.exit is not None:
            self.box.give_back(self.asker)
        else:
            hang_up(self.asker)
            make_ahead()
