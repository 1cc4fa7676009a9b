"""A command under way, for an event loop."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import weakref
from collections.abc import Callable
from time import perf_counter_ns
from types import TracebackType

from immure.engine.process import MakeResult, hear_start
from immure.engine.readiness import Readiness
from immure.engine.result import Result
from immure.engine.stdio import set_window_size
from immure.errors import ImmureError
from immure.runtimes.process.attend import Attendance, Sink, Stdio, read_stream
from immure.runtimes.process.box import Box
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket

_CHUNK = 1 << 16


class AsyncStream:
    """What a command writes to one of its streams. Nothing is read ahead, so what nobody reads stops the command."""

    def __init__(self, process: AsyncProcess, sink: Sink) -> None:
        self._process = process
        self._fd, sink.fd = sink.fd, -1
        self._sink = sink
        self._rest = b""
        self._reading = asyncio.Lock()

    async def read(self, size: int = -1) -> bytes:
        """All until its end, or one chunk of at most `size` bytes; empty at the end."""
        if size == 0:
            return b""
        if size > 0:
            chunk = self._rest or await self._chunk(min(size, _CHUNK))
            self._rest = chunk[size:]
            return chunk[:size]
        parts = [self._rest]
        self._rest = b""
        while chunk := await self._chunk(_CHUNK):
            parts.append(chunk)
        return b"".join(parts)

    async def readline(self) -> bytes:
        """A line with its end, or what there is of one: at most 64 KiB, and less at the end of the stream."""
        line = self._rest
        while b"\n" not in line and len(line) < _CHUNK:
            chunk = await self._chunk(_CHUNK)
            if not chunk:
                break
            line += chunk
        end = line.find(b"\n") + 1 or min(len(line), _CHUNK)
        line, self._rest = line[:end], line[end:]
        return line

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> bytes:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def _chunk(self, size: int) -> bytes:
        async with self._reading:
            if self._fd < 0:
                return b""
            await _ready(self._fd, write=False)
            return self._process.note(self._sink, read_stream(self._fd, size))

    def close(self) -> None:
        """Lets go of it. What the command still writes is an error to it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class AsyncInput:
    """The standard input of a command."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._writing = asyncio.Lock()
        self._file = io.FileIO(fd, "wb")

    async def write(self, data: bytes) -> None:
        """Writes all of it, as fast as the command reads. Raises BrokenPipeError where it reads no more."""
        async with self._writing:
            view = memoryview(data)
            while view:
                count = self._file.write(view)
                if count is None:
                    await _ready(self._file.fileno(), write=True)
                else:
                    view = view[count:]

    def fileno(self) -> int:
        """The descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Ends the command's input."""
        self._file.close()


class AsyncProcess:
    """A command that was started in a box. An asynchronous context manager: leaving it ends the command.

    A stream that was asked for is its reader's; `wait` collects the others.
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
    ) -> None:
        hear_start(asker, request)
        self._box = box
        self._asker = asker
        self._stdio = stdio
        self._request = request
        self._make_result = make_result
        self._bounded = bounded
        self._began = perf_counter_ns()
        self._waiting = asyncio.Lock()
        self._result: Result | None = None
        self._failure: ImmureError | None = None
        self._streams: dict[int, AsyncStream] = {}
        self._released = False
        self._terminal = stdio.terminal
        self._attendance = Attendance(box, asker, stdio, request, one_shot=False)
        self._stdin: AsyncInput | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._look_at_time()
        # Last: from here on it closes the descriptor, and nobody else does.
        self._stdin = AsyncInput(writer) if writer is not None else None

    @property
    def stdin(self) -> AsyncInput | None:
        """Where to write for a command that was started with PIPE or a terminal."""
        return self._stdin

    @property
    def stdout(self) -> AsyncStream:
        """What the command writes; with a terminal, all that it shows."""
        return self._stream(0)

    @property
    def stderr(self) -> AsyncStream:
        """What the command writes of errors. A terminal has no such stream of its own: always at its end."""
        return self._stream(1)

    def _stream(self, index: int) -> AsyncStream:
        if index not in self._streams:
            if self._waiting.locked():
                raise RuntimeError("another task waits for the command, and collects its streams")
            sinks = self._stdio.sinks
            self._streams[index] = AsyncStream(self, sinks[index] if index < len(sinks) else Sink(-1, None))
        return self._streams[index]

    def note(self, sink: Sink, chunk: bytes) -> bytes:
        """What of a chunk that was read is within the limit of output; past it the command is ended."""
        return self._attendance.note(sink, chunk, bounded=self._bounded)

    def signal(self, number: int, *, group: bool = False) -> None:
        """Sends a signal to the command, or to its process group. Of no effect once its end was heard."""
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

    async def wait(self) -> Result:
        """Waits for the end, and collects the streams that nobody asked for. Raises BoxLost where the box is gone.

        Cancelling the wait leaves the command as it is.
        """
        async with self._waiting:
            if self._failure is not None:
                raise self._failure
            if self._result is None:
                self._result = await self._attended()
            return self._result

    async def _attended(self) -> Result:
        if self._released:
            raise ValueError("the command was closed before its end was heard")
        try:
            await self._attend()
            exec_us = (perf_counter_ns() - self._began) // 1000
            self._release()
            return self._make_result(self._request, self._attendance, exec_us)
        except ImmureError as error:
            self._failure = error
            self._release()
            raise

    async def _attend(self) -> None:
        attendance, readiness = self._attendance, Readiness()
        try:
            attendance.register(readiness)
            while not attendance.finished():
                for fd, event in await readiness.poll(attendance.wait_ms()):
                    attendance.handle(readiness, fd, event)
                attendance.check_time()
        finally:
            readiness.close()

    def close(self) -> None:
        """Ends the command where it still runs, and lets go of its streams. May be called again."""
        self._release()
        for stream in self._streams.values():
            stream.close()

    def _release(self) -> None:
        if self._released:
            return
        self._released = True
        if self._timer is not None:
            self._timer.cancel()
        if self._attendance.exit is not None:
            self._box.give_back(self._asker)
        else:
            # It ends the command.
            self._asker.close()
        self._stdio.done()
        if self._stdin is not None:
            self._stdin.close()

    def _look_at_time(self) -> None:
        """Ends the command where its time is over, and sees when to look again."""
        if self._released or self._attendance.exit is not None:
            return
        self._attendance.check_time()
        due = self._attendance.wait_ms()
        if due is not None:
            # Weakly: a process that nobody holds is not to live until its time is over.
            look = weakref.WeakMethod(self._look_at_time)
            self._timer = asyncio.get_running_loop().call_later(due / 1000, _look, look)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # One that nobody holds is ended with its socket.
        if hasattr(self, "_timer"):
            self._release()

    def __repr__(self) -> str:
        ended = self._attendance.exit is not None
        return f"<AsyncProcess {self._request.argv[0]!r} {'ended' if ended else 'running'}>"


def _look(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    look = method()
    if look is not None:
        look()


async def _ready(fd: int, *, write: bool) -> None:
    readiness = Readiness()
    readiness.register(fd, 4 if write else 1)
    try:
        await readiness.poll(None)
    finally:
        readiness.close()
