"""What the commands of a box did and wrote, as far as it came through us: the newest of it, within bounds."""

from __future__ import annotations

import itertools
import shlex
import threading
from collections import deque
from time import time
from typing import Literal

from msgspec import Struct

from immure.engine.result import Output, Result
from immure.errors import BoxLost, ExecFailed

LogStream = Literal["started", "stdout", "stderr", "ended"]
_STREAMS: tuple[LogStream, ...] = ("stdout", "stderr")
#: What keeping an entry takes beside its data: without it, many small ones would take memory without end.
_ENTRY_BYTES = 200


class LogEntry(Struct, frozen=True, gc=False):
    """One thing that a command of a box did.

    `time_s` is in seconds since 1970, `command` the number of the command in its box, from 1 on, and `position` how
    many bytes of data the log has taken up to this entry and with it: what a follower goes on from.

    `data` depends on `stream`: `started` has the arguments, each ended by a zero byte; `stdout` and `stderr` the bytes
    that the command wrote, as they came; `ended` one of `exited STATUS`, `signaled NUMBER`, `timeout`, `oom`, `output`,
    `refused STATUS` (it could not be started), `lost` (the box fell under it) and `closed` (nobody waited for its end).
    """

    position: int
    time_s: float
    command: int
    stream: LogStream
    data: bytes

    def text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """The data as text, of `started` as a shell would take it. It is the box's: nothing in it is escaped."""
        if self.stream == "started":
            return shlex.join(one.decode(encoding, errors) for one in self.data.split(b"\0")[:-1])
        return self.data.decode(encoding, errors)


class Logs(Struct, frozen=True):
    """Entries of a log, oldest first, and how many bytes of data are missing before them.

    They are missing because the log keeps only the newest, whichever commands they were of.
    """

    entries: tuple[LogEntry, ...]
    dropped_bytes: int

    def output(self) -> Output:
        """What the commands wrote, standard output and error as they came."""
        return Output(b"".join(one.data for one in self.entries if one.stream in _STREAMS))


class Log:
    """The record of one box: the newest entry, and those before it for which there is room. Threads may share it.

    Each entry takes as much room as its data, and 200 bytes more.
    """

    def __init__(self, room: int) -> None:
        # Of a kind that the same thread may take again: the garbage collector ends commands at any moment.
        self._lock = threading.RLock()
        self._more = threading.Condition(self._lock)
        self._left = room
        self._most = max(0, room - _ENTRY_BYTES)
        self._kept: deque[LogEntry] = deque()
        self._late: deque[tuple[int, LogStream, bytes]] = deque()
        self._busy = False
        self._commands = itertools.count(1)
        self._position = self._dropped = self._waiting = 0

    def begin(self, argv: list[bytes]) -> Record:
        """The record of another command, which is about to be started."""
        record = Record(self, argv)
        record.begun()
        return record

    def next_number(self) -> int:
        """The number of another command."""
        return next(self._commands)

    def add(self, command: int, stream: LogStream, data: bytes) -> None:
        """Takes an entry, and lets go of the oldest where there is no room for all."""
        with self._lock:
            self._late.append((command, stream, data))
            if self._busy:
                # We are the garbage collector, in the midst of this: who is under way takes it along.
                return
            self._busy = True
            while self._late:
                self._keep(*self._late.popleft())
            self._busy = False
            if self._waiting:
                self._more.notify_all()

    def _keep(self, command: int, stream: LogStream, data: bytes) -> None:
        self._position = position = self._position + len(data)
        if len(data) > self._most:
            # The end of it is the newest.
            self._dropped += len(data) - self._most
            data = data[len(data) - self._most :]
        self._kept.append(LogEntry(position, time(), command, stream, data))
        self._left -= len(data) + _ENTRY_BYTES
        while self._left < 0 and len(self._kept) > 1:
            oldest = len(self._kept.popleft().data)
            self._left += oldest + _ENTRY_BYTES
            self._dropped += oldest

    def read(self, command: int | None = None, tail: int | None = None) -> Logs:
        """What is kept, of one command or of all; with `tail`, the last so many entries of it."""
        with self._lock:
            entries, dropped = [*self._kept], self._dropped
        found = [one for one in entries if command is None or one.command == command]
        return Logs(tuple(found if tail is None else found[max(0, len(found) - tail) :]), dropped)

    def wait(self, after: int = 0, timeout_s: float | None = None) -> Logs:
        """What came after a position, as soon as there is something; nothing where none comes in time.

        A follower that gives the `position` of the last entry it got misses and doubles nothing, and is told how many
        bytes were dropped in between.
        """
        with self._lock:
            self._waiting += 1
            try:
                self._more.wait_for(lambda: self._position > after, timeout_s)
            finally:
                self._waiting -= 1
            entries, end = [*self._kept], self._position
        found = tuple(one for one in entries if one.position > after)
        start = found[0].position - len(found[0].data) if found else end
        return Logs(found, max(0, start - after))


class Record:
    """What one command adds to the log of its box: nothing before `begun`. Its number is 0 until then."""

    __slots__ = ("_argv", "_log", "_over", "number")

    def __init__(self, log: Log, argv: list[bytes]) -> None:
        self._log = log
        self._argv = argv
        self.number = 0
        self._over = False

    def begun(self) -> None:
        """It was asked for, so that there is time for this."""
        self.number = self._log.next_number()
        self._log.add(self.number, "started", b"\0".join(self._argv) + b"\0")

    def wrote(self, index: int, chunk: bytes) -> None:
        """A chunk of its standard output (0, or what a terminal shows) or error (1)."""
        if chunk:
            self._log.add(self.number, _STREAMS[index], chunk)

    def ended(self, result: Result) -> None:
        """It has ended, and how is known."""
        how = result.exit
        if how.kind == "exited":
            self._end(b"exited %d" % how.code)
        else:
            self._end(b"signaled %d" % how.signal if how.kind == "signaled" else how.kind.encode())

    def failed(self, error: BaseException) -> None:
        """It has not, or nobody will know how. Says nothing where its end was told."""
        if isinstance(error, ExecFailed):
            self._end(b"refused %d" % error.exit_status)
        else:
            self._end(b"lost" if isinstance(error, BoxLost) else b"closed")

    def closed(self) -> None:
        """It was ended by whoever started it. Says nothing where its end was told."""
        self._end(b"closed")

    def _end(self, word: bytes) -> None:
        if not self._over:
            self._over = True
            if not self.number:
                self.begun()
            self._log.add(self.number, "ended", word)
