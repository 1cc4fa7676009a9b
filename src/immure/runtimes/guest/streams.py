"""The caller's end of a command's streams, as descriptors that are never waited for."""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Callable

from immure.channel.frames import Output
from immure.channel.limits import CHUNK_BYTES, WINDOW_BYTES
from immure.channel.pump import GONE, IN, OUT, Pump


def own_copy(fd: int, access: int) -> int:
    """A descriptor of ours for the same object, which does not wait.

    Not waiting belongs to what descriptors share, so pipes and terminals are opened anew. Others never wait.
    """
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        return os.dup(fd)
    flags = access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{fd}", flags)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        # Nobody reads it any more.
        return os.open("/dev/null", access | os.O_CLOEXEC)


class Source:
    """Standard input: read as fast as the guest takes it."""

    def __init__(self, pump: Pump, fd: int, stream: int) -> None:
        self._pump, self._fd, self._stream = pump, fd, stream
        #: Of a kind that can always be read, which nobody can wait for.
        self._always = not pump.watch(fd, IN, self._read)
        self._watched = not self._always
        #: It is to be read at the next step, or when there is room.
        self._queued = False
        if self._always:
            self._queue(pump.soon)

    def go_on(self) -> None:
        """There is room again, or may be."""
        self._queued = False
        if self._fd < 0 or self._watched or self._pump.host.input_room(self._stream) == 0:
            return
        if not self._pump.has_room():
            self._queue(self._pump.when_room)
        elif self._always:
            self._read(IN)
        else:
            self._watched = self._pump.watch(self._fd, IN, self._read)

    def _queue(self, when: Callable[[Callable[[], None]], None]) -> None:
        if not self._queued:
            self._queued = True
            when(self.go_on)

    def _read(self, _event: int) -> None:
        room = min(self._pump.host.input_room(self._stream), CHUNK_BYTES)
        try:
            data = os.read(self._fd, room) if room else None
        except BlockingIOError:
            return
        except OSError:
            # A terminal that was hung up, or a folder.
            data = b""
        if data == b"":
            self._pump.host.end_input(self._stream)
            self.close()
            return
        if data:
            self._pump.host.send_input(self._stream, data)
        if self._always:
            # Others are to have their turn.
            self._queue(self._pump.soon)
        elif not self._pump.host.input_room(self._stream) or not self._pump.has_room():
            # An end that is not heard would be told again and again.
            self._pump.unwatch(self._fd)
            self._watched = False
            self.go_on()

    def close(self) -> None:
        """Lets go of it: who writes there is to learn that nobody reads."""
        if self._fd >= 0:
            self._pump.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1


class Target:
    """An output: written as fast as its reader reads, and never more kept of it than a window."""

    def __init__(self, pump: Pump, fd: int, stream: int, output: Output) -> None:
        self._pump, self._fd = pump, fd
        self._stream = stream
        self._output: Output = output
        self._pending: deque[bytes] = deque()
        self._written = 0
        self._ended = False
        #: How much is still to be written of what came before the exit; None until all of that is here.
        self._owed: int | None = None
        #: Called when it is at its end, or when more of it was written.
        self.moved: Callable[[], None] | None = None
        self._watched = pump.watch(fd, 0, self._on_ready)

    @property
    def is_open(self) -> bool:
        """Whether somebody may read it, and more may come."""
        return self._fd >= 0

    @property
    def is_drained(self) -> bool:
        """Whether all is written that came before the exit, or nobody reads it."""
        return self._owed == 0

    def drain(self) -> None:
        """All has come that was written before the exit."""
        if self._owed is None:
            self._owed = sum(map(len, self._pending))

    def put(self, data: bytes) -> None:
        """Takes what the command has written."""
        if self._fd < 0:
            return
        self._pending.append(data)
        if len(self._pending) == 1:
            self._write()

    def end(self) -> None:
        """Nothing more will come."""
        self.drain()
        self._ended = True
        if not self._pending:
            self.close()

    def _on_ready(self, event: int) -> None:
        if event & GONE:
            self._nobody_reads()
        else:
            self._write()
        if self.moved is not None:
            self.moved()

    def _write(self) -> None:
        while self._pending:
            chunk = self._pending[0]
            try:
                count = os.write(self._fd, chunk)
            except BlockingIOError:
                break
            except OSError:
                self._nobody_reads()
                return
            if count < len(chunk):
                self._pending[0] = chunk[count:]
            else:
                self._pending.popleft()
            self._written += count
            if self._owed is not None:
                self._owed = max(0, self._owed - count)
        self._tell_room()
        if self._ended and not self._pending:
            self.close()
        elif self._watched:
            self._pump.change(self._fd, OUT if self._pending else 0)

    def _tell_room(self) -> None:
        if self._written >= WINDOW_BYTES // 2:
            self._pump.host.add_room(self._stream, self._output, self._written)
            self._written = 0

    def _nobody_reads(self) -> None:
        self._pump.host.close_output(self._stream, self._output)
        self.close()

    def close(self) -> None:
        """Lets go of it, with what was not written."""
        if self._fd >= 0:
            self._pump.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._pending.clear()
        self._owed = 0
