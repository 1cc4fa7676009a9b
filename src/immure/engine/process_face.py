"""What a command under way shows of itself, whether its caller blocks or awaits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from time import perf_counter_ns
from typing import Protocol

from immure.engine.deadlines import watch_over
from immure.engine.log import Record
from immure.engine.ownership import check_owner
from immure.engine.result import Result
from immure.engine.stdio import set_window_size
from immure.errors import BoxLost, ImmureError
from immure.runtimes.base import Commands
from immure.runtimes.process import frames
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.course import Exit, Sink
from immure.runtimes.process.faults import exec_failed
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, disconnect, hang_up, receive

MakeResult = Callable[[Request, Attendance, int], Result]


class Input(Protocol):
    """A command's standard input, as far as both faces need it."""

    def fileno(self) -> int:
        """The descriptor."""
        ...

    def close(self) -> None:
        """Ends the input."""


class ProcessFace:
    """A command under way. `Process` and `AsyncProcess` add what waits, and the streams."""

    def __init__(
        self,
        box: Commands,
        asker: Socket,
        stdio: Stdio,
        request: Request,
        make_result: MakeResult,
        *,
        bounded: bool,
        record: Record | None,
    ) -> None:
        self._box = box
        self._asker = asker
        self._stdio = stdio
        self._request = request
        self._make_result = make_result
        self._bounded = bounded
        self._owner = os.getpid()
        self._began = perf_counter_ns()
        self._state = threading.RLock()
        self._result: Result | None = None
        self._failure: ImmureError | None = None
        self._released = False
        #: Somebody has closed it, maybe under another who waits.
        self._closed = False
        self._input: Input | None = None
        self._record = record
        self._attendance = Attendance(box, asker, stdio, request)
        if record is not None:
            self._attendance.heard = record.wrote
        # For whoever is held up by the command, and so can't look at the time.
        watch_over(self._attendance, request.timeout_s)

    @property
    def number(self) -> int:
        """The command's number in the log of its box, from 1 on; 0 for an operation on files."""
        return self._record.number if self._record is not None else 0

    def signal(self, number: int, *, group: bool = False) -> None:
        """Sends a signal to the command, or to its process group. Of no effect once its end was heard."""
        self.refuse_forked()
        with self._state:
            if not self._released and self._attendance.exit is None:
                self._attendance.signal(number, group=group)

    def close(self) -> None:
        """Ends the command where it still runs, and lets go of its streams. May be called again."""
        raise NotImplementedError

    def kill(self) -> None:
        """Ends the command and its process group, at once. What has left the group ends with the box."""
        self.signal(signal.SIGKILL, group=True)

    def resize(self, columns: int, rows: int) -> None:
        """Tells a command with a terminal how large that is now. Raises ValueError where it has none."""
        if not self._stdio.terminal or self._input is None:
            raise ValueError("the command has no terminal")
        set_window_size(self._input.fileno(), columns, rows)
        with self._state:
            if not self._released:
                self._box.resized(self._asker, columns, rows)

    def note(self, sink: Sink, chunk: bytes) -> bytes:
        """What of a chunk that was read is within the limit of output; past it the command is ended."""
        self.refuse_forked()
        with self._state:
            return self._attendance.note(sink, chunk, bounded=self._bounded)

    def _sink(self, index: int) -> Sink:
        """A stream of the command; one at its end where it has none of that number."""
        sinks = self._stdio.sinks
        return sinks[index] if index < len(sinks) else Sink(-1, None)

    def _known(self) -> Result | None:
        """The result where it is known. Raises what waiting raised, or ValueError where nobody can know it any more."""
        self.refuse_forked()
        if self._failure is not None:
            raise self._failure
        if self._result is None and (self._released or self._closed):
            raise self._was_closed()
        return self._result

    def refuse_forked(self) -> None:
        """Raises BoxLost in a forked child, to which the command does not belong."""
        check_owner(self._owner, "command", "start one in a Sandbox that is made after the fork")

    def _was_closed(self) -> ValueError:
        return ValueError("the command was closed before its end was heard")

    def _conclude(self) -> Result:
        """The result of a command whose end was heard. Raises as `judge_end` does, now and later."""
        exec_us = (perf_counter_ns() - self._began) // 1000
        try:
            self._result = result = self._make_result(self._request, self._attendance, exec_us)
        except ImmureError as error:
            self._fail(error)
            raise
        if self._record is not None:
            self._record.ended(result)
        self._release()
        return result

    def _fail(self, error: ImmureError) -> None:
        self._failure = error
        if self._record is not None:
            self._record.failed(error)
        self._release()

    def _end(self) -> None:
        """Ends the command where it still runs, which wakes whoever waits for it."""
        with self._state:
            self._closed = True
            if not self._released and self._attendance.exit is None:
                disconnect(self._asker)

    def _release(self) -> None:
        """Ends the command where it still runs, and lets go of what is held for it. Nobody waits for it any more."""
        if self._owner != os.getpid():
            # A forked child lets go of its copies, and says nothing. Its lock may be held by a thread that is not here.
            self._asker.close()
        else:
            with self._state:
                if self._released:
                    return
                self._released = True
                if self._attendance.exit is not None and not self._closed:
                    self._box.give_back(self._asker)
                else:
                    # It ends the command.
                    hang_up(self._asker)
        self._stdio.done()
        if self._input is not None:
            self._input.close()
        self._attendance.leave()
        if self._record is not None:
            self._record.closed()

    def _look_at_time(self) -> float | None:
        """Ends the command where its time is over. In how many seconds to look again, if at all."""
        with self._state:
            if self._released or self._attendance.exit is not None:
                return None
            self._attendance.check_time()
            due_ms = self._attendance.wait_ms()
        return None if due_ms is None else due_ms / 1000

    def __del__(self) -> None:
        # One that nobody holds is ended with its socket.
        if hasattr(self, "_attendance"):
            self._release()

    def __repr__(self) -> str:
        ended = self._attendance.exit is not None
        return f"<{type(self).__name__} {self._request.argv[0]!r} {'ended' if ended else 'running'}>"


def hear_start(box: Commands, asker: Socket, request: Request) -> None:
    """Waits until the command's program runs. Raises ExecFailed where it can't be started, and BoxLost."""
    message, fds = receive(asker)
    for fd in fds:
        os.close(fd)
    if not message:
        raise box.failure or BoxLost(
            "the box has ended", need="a box in use", have="its stem is gone", hint="make a new Sandbox"
        )
    if frames.kind_of(message) != frames.STARTED:
        seen = Exit(message)
        raise exec_failed(request, seen.errno, seen.step)
