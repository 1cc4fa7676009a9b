"""A command under way: its streams, its signals, its end. Blocking."""

from __future__ import annotations

import io
import os
import select
import threading
from time import monotonic
from typing import Any

from immure.engine.deadlines import watch
from immure.engine.log import Record
from immure.engine.process_face import MakeResult, ProcessFace
from immure.engine.result import Result
from immure.errors import ImmureError
from immure.runtimes.base import Commands
from immure.runtimes.process.attend import Stdio, read_stream
from immure.runtimes.process.course import Sink
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket


class Process(ProcessFace):
    """A command that was started in a box. A context manager: leaving it ends the command.

    Its streams are binary files. One that was asked for is its reader's; `wait` collects the others. What nobody reads
    stops the command once the pipe is full, as everywhere, so that memory is bounded however fast a box writes.
    """

    def __init__(
        self,
        box: Commands,
        asker: Socket,
        stdio: Stdio,
        writer: int | None,
        request: Request,
        make_result: MakeResult,
        *,
        bounded: bool,
        record: Record | None,
    ) -> None:
        super().__init__(box, asker, stdio, request, make_result, bounded=bounded, record=record)
        self._waiting = threading.Lock()
        self._readers: dict[int, io.BufferedReader] = {}
        if request.timeout_s is not None:
            watch(monotonic() + request.timeout_s, self._look_at_time)
        # Last: from here on it closes the descriptor, and nobody else does.
        self._stdin = self._input = _Input(writer, "wb") if writer is not None else None

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
        self.refuse_forked()
        reader = self._readers.get(index)
        if reader is not None:
            return reader
        if not self._waiting.acquire(blocking=False):
            raise RuntimeError("another thread waits for the command, and collects its streams")
        try:
            return self._readers.setdefault(index, io.BufferedReader(_Raw(self, self._sink(index))))
        finally:
            self._waiting.release()

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
        try:
            with self._waiting:
                return self._known() or self._awaited(None if timeout_s is None else monotonic() + timeout_s)
        finally:
            if self._closed:
                # Under us, by another thread.
                self._let_go()

    def _awaited(self, until: float | None) -> Result:
        try:
            self._attend(until)
        except ImmureError as error:
            if self._closed:
                raise self._was_closed() from None
            self._fail(error)
            raise
        return self._conclude()

    def _let_go(self) -> None:
        """Where another thread waits, it does this on its way out."""
        if self._waiting.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._waiting.release()

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
        """Ends the command where it still runs, and lets go of its streams. May be called again.

        A thread that waits for the command gets a ValueError.
        """
        if self._owner == os.getpid():
            self._end()
            self._let_go()
        else:
            self._release()
        for reader in self._readers.values():
            reader.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Input(io.FileIO):
    """Standard input. A terminal's is one file with what it shows, and that is not waited for."""

    def write(self, data: Any, /) -> int:  # type: ignore[override]
        view = memoryview(data).cast("B")
        while view:
            count = super().write(view)
            if count is None:
                _wait_for(self.fileno(), select.POLLOUT)
            else:
                view = view[count:]
        return memoryview(data).nbytes


def _wait_for(fd: int, events: int) -> None:
    poll = select.poll()
    poll.register(fd, events)
    poll.poll()


class _Raw(io.RawIOBase):
    """One stream, counted as it is read. It takes the descriptor from those that `wait` collects."""

    def __init__(self, process: Process, sink: Sink) -> None:
        self._process = process
        self._fd, sink.fd = sink.fd, -1
        self._sink = sink

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._process.refuse_forked()
        if self._fd < 0:
            return 0
        while (read := read_stream(self._fd, len(buffer))) is None:
            _wait_for(self._fd, select.POLLIN)
        chunk = self._process.note(self._sink, read)
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        super().close()
