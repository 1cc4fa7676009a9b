"""A command under way, for an event loop."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable

from immure.engine.log import Record
from immure.engine.process_face import MakeResult, ProcessFace
from immure.engine.readiness import Watched, drive
from immure.engine.result import Result
from immure.errors import ImmureError
from immure.runtimes.base import Commands
from immure.runtimes.process.attend import Stdio, read_stream
from immure.runtimes.process.course import Sink
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket

_CHUNK = 1 << 16


class AsyncStream:
    """What a command writes to one of its streams. Nothing is read ahead, so what nobody reads stops the command."""

    def __init__(self, process: AsyncProcess, sink: Sink) -> None:
        self._process = process
        self._file = Watched(sink.fd) if sink.fd >= 0 else None
        if self._file is not None:
            # What there is to read, a box can take away again; and the loop would wait.
            os.set_blocking(sink.fd, False)
        sink.fd = -1
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
        self._process.refuse_forked()
        async with self._reading:
            while self._file is not None and await self._file.readable():
                chunk = read_stream(self._file.fd, size)
                if chunk is not None:
                    return self._process.note(self._sink, chunk)
            return b""

    def close(self) -> None:
        """Lets go of it. What the command still writes is an error to it. A task that reads is at the end."""
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        self.close()


class AsyncInput:
    """The standard input of a command."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._writing = asyncio.Lock()
        self._file = Watched(fd)

    async def write(self, data: bytes) -> None:
        """Writes all of it, as fast as the command reads.

        Raises BrokenPipeError where it reads no more, and ValueError where the input is closed, or was meanwhile.
        """
        async with self._writing:
            view = memoryview(data)
            while view:
                fd = self.fileno()
                try:
                    view = view[os.write(fd, view) :]
                except BlockingIOError:
                    await self._file.writable()

    def fileno(self) -> int:
        """The descriptor. Raises ValueError where it is closed."""
        if self._file.closed:
            raise ValueError("the command's input is closed")
        return self._file.fd

    def close(self) -> None:
        """Ends the command's input."""
        self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


class AsyncProcess(ProcessFace):
    """A command that was started in a box. An asynchronous context manager: leaving it ends the command.

    A stream that was asked for is its reader's; `wait` collects the others.
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
        self._waiting = asyncio.Lock()
        self._streams: dict[int, AsyncStream] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._keep_time()
        # Last: from here on it closes the descriptor, and nobody else does.
        self._stdin = self._input = AsyncInput(writer) if writer is not None else None

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
        self.refuse_forked()
        if index not in self._streams:
            if self._waiting.locked():
                raise RuntimeError("another task waits for the command, and collects its streams")
            self._streams[index] = AsyncStream(self, self._sink(index))
        return self._streams[index]

    async def wait(self) -> Result:
        """Waits for the end, and collects the streams that nobody asked for. Raises BoxLost where the box is gone.

        Cancelling the wait leaves the command as it is.
        """
        try:
            async with self._waiting:
                return self._known() or await self._awaited()
        finally:
            if self._closed:
                # Under us, by another task.
                self._let_go()

    async def _awaited(self) -> Result:
        try:
            await drive(self._attendance)
        except ImmureError as error:
            if self._closed:
                raise self._was_closed() from None
            self._fail(error)
            raise
        return self._conclude()

    def close(self) -> None:
        """Ends the command where it still runs, and lets go of its streams. May be called again.

        A task that waits for the command gets a ValueError.
        """
        if self._owner == os.getpid():
            self._end()
        self._let_go()
        for stream in self._streams.values():
            stream.close()

    def _let_go(self) -> None:
        """Where another task waits, it does this on its way out."""
        if not self._waiting.locked():
            self._release()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super()._release()

    def _keep_time(self) -> None:
        again_s = self._look_at_time()
        if again_s is not None:
            # Weakly: a process that nobody holds is not to live until its time is over.
            look = weakref.WeakMethod(self._keep_time)
            self._timer = asyncio.get_running_loop().call_later(again_s, _look, look)

    async def __aenter__(self) -> AsyncProcess:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()


def _look(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    look = method()
    if look is not None:
        look()
