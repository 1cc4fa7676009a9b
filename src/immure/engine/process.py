"""A command under way: its streams, its signals, its end."""

from __future__ import annotations

import io
import os
import select
import signal
import threading
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from types import TracebackType

from immure.engine.deadlines import watch
from immure.engine.result import Result
from immure.engine.stdio import set_window_size
from immure.errors import BoxLost, ImmureError
from immure.runtimes.process import frames
from immure.runtimes.process.attend import Attendance, Exit, Sink, Stdio, read_stream
from immure.runtimes.process.box import Box
from immure.runtimes.process.faults import exec_failed
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, receive

MakeResult = Callable[[Request, Attendance, int], Result]


class Process:
    """A command that was started in a box. A context manager: leaving it ends the command.

    Its streams are binary files. One that was asked for is its reader's; `wait` collects the others. What nobody reads
    stops the command once the pipe is full, as everywhere, so that memory is bounded however fast a box writes.
    """

    def __init__(
        self,
        box: Box,
        asker: Socket,
        stdio: Stdio,
        writer: int | None,
        request: Request,
        make_result: MakeResult,
        *,
        bounded: bool,
        told: bool = True,
    ) -> None:
        self._box = box
        self._asker = asker
        self._stdio = stdio
        self._request = request
        self._make_result = make_result
        self._bounded = bounded
        self._began = perf_counter_ns()
        self._state = threading.Lock()
        self._waiting = threading.Lock()
        self._result: Result | None = None
        self._failure: ImmureError | None = None
        self._readers: dict[int, io.BufferedReader] = {}
        self._released = False
        self._terminal = stdio.terminal
        if told:
            try:
                hear_start(asker, request)
            except BaseException:
                asker.close()
                raise
        self._attendance = Attendance(box, asker, stdio, request, one_shot=False)
        self._stdin: io.FileIO | None = None
        if request.timeout_s is not None:
            watch(monotonic() + request.timeout_s, self._look_at_time)
        # Last: from here on it closes the descriptor, and nobody else does.
        self._stdin = io.FileIO(writer, "wb") if writer is not None else None

    @property
    def stdin(self) -> io.FileIO | None:
        """Where to write for a command that was started with PIPE or a terminal; closing it is the end of its input."""
        return self._stdin

    @property
    def stdout(self) -> io.BufferedReader:
        """What the command writes; with a terminal, all that it shows."""
        return self._reader(0)

    @property
    def stderr(self) -> io.BufferedReader:
        """What the command writes of errors. A terminal has no such stream of its own: always at its end."""
        return self._reader(1)

    def _reader(self, index: int) -> io.BufferedReader:
        reader = self._readers.get(index)
        if reader is not None:
            return reader
        if not self._waiting.acquire(blocking=False):
            raise RuntimeError("another thread waits for the command, and collects its streams")
        try:
            sinks = self._stdio.sinks
            raw = _Raw(self, sinks[index]) if index < len(sinks) else _Raw(self, Sink(-1, None))
            return self._readers.setdefault(index, io.BufferedReader(raw))
        finally:
            self._waiting.release()

    def signal(self, number: int, *, group: bool = False) -> None:
        """Sends a signal to the command, or to its process group. Of no effect once its end was heard."""
        with self._state:
            if not self._released and self._attendance.exit is None:
                self._attendance.signal(number, group=group)

    def kill(self) -> None:
        """Ends the command and its process group, at once. What has left the group ends with the box."""
        self.signal(signal.SIGKILL, group=True)

    def resize(self, columns: int, rows: int) -> None:
        """Tells a command with a terminal how large that is now. Raises ValueError where it has none."""
        if not self._terminal or self._stdin is None:
            raise ValueError("the command has no terminal")
        set_window_size(self._stdin.fileno(), columns, rows)

    def poll(self) -> Result | None:
        """The result where the command has ended, else None. Raises as `wait`."""
        try:
            return self.wait(0)
        except TimeoutError:
            return None

    def wait(self, timeout_s: float | None = None) -> Result:
        """Waits for the end, and collects the streams that nobody asked for.

        Raises TimeoutError where it is not over after `timeout_s`, and can be called again then; BoxLost where the box
        is gone.
        """
        with self._waiting:
            if self._failure is not None:
                raise self._failure
            if self._result is None:
                self._result = self._attended(None if timeout_s is None else monotonic() + timeout_s)
            return self._result

    def _attended(self, until: float | None) -> Result:
        if self._released:
            raise ValueError("the command was closed before its end was heard")
        try:
            self._attend(until)
            exec_us = (perf_counter_ns() - self._began) // 1000
            self._release()
            return self._make_result(self._request, self._attendance, exec_us)
        except ImmureError as error:
            self._failure = error
            self._release()
            raise

    def _attend(self, until: float | None) -> None:
        attendance, poll = self._attendance, select.poll()
        attendance.register(poll)
        while not attendance.finished():
            due, left = attendance.wait_ms(), None
            if until is not None:
                left = max(0, int((until - monotonic()) * 1000))
            events = poll.poll(min((one for one in (due, left) if one is not None), default=None))
            for fd, event in events:
                attendance.handle(poll, fd, event)
            attendance.check_time()
            if left == 0 and not events and not attendance.finished():
                raise TimeoutError("the command is still running")

    def close(self) -> None:
        """Ends the command where it still runs, and lets go of its streams. May be called again."""
        self._release()
        for reader in self._readers.values():
            reader.close()

    def _release(self) -> None:
        with self._state:
            if self._released:
                return
            self._released = True
            if self._attendance.exit is not None:
                self._box.give_back(self._asker)
            else:
                # It ends the command.
                self._asker.close()
        self._stdio.done()
        if self._stdin is not None:
            self._stdin.close()

    def _look_at_time(self) -> float | None:
        """Ends the command where its time is over. When to look again."""
        with self._state:
            if self._released or self._attendance.exit is not None:
                return None
            self._attendance.check_time()
            due = self._attendance.wait_ms()
        return None if due is None else monotonic() + due / 1000

    def note(self, sink: Sink, chunk: bytes) -> bytes:
        """What of a chunk that was read is within the limit of output; past it the command is ended."""
        with self._state:
            return self._attendance.note(sink, chunk, bounded=self._bounded)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # One that nobody holds is ended with its socket.
        if hasattr(self, "_stdin"):
            self._release()

    def __repr__(self) -> str:
        ended = self._attendance.exit is not None
        return f"<Process {self._request.argv[0]!r} {'ended' if ended else 'running'}>"


def hear_start(asker: Socket, request: Request) -> None:
    """Waits until the command's program runs. Raises ExecFailed where it can't be started, and BoxLost."""
    message, fds = receive(asker)
    for fd in fds:
        os.close(fd)
    if not message:
        raise BoxLost("the box has ended", need="a box in use", have="its stem is gone", hint="make a new Sandbox")
    if frames.kind_of(message) != frames.STARTED:
        seen = Exit(message)
        raise exec_failed(request, seen.errno, seen.step)


class _Raw(io.RawIOBase):
    """One stream, counted as it is read. It takes the descriptor from those that `wait` collects."""

    def __init__(self, process: Process, sink: Sink) -> None:
        self._process = process
        self._fd = sink.fd
        sink.fd = -1
        self._sink = sink

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._fd < 0:
            return 0
        chunk = self._process.note(self._sink, read_stream(self._fd, len(buffer)))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()
