"""How a running command goes, however its output comes: what is kept of it, its limits, and its end.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import _thread
import os
from time import monotonic

from immure.errors import BoxLost
from immure.plan.launch import MACHINES
from immure.runtimes.process import frames
from immure.runtimes.process.request import Request

_SIGKILL = 9
#: A machine that is busy takes a while to end a command. What ends its box instead takes it from everybody.
_GRACE_S = 5.0
#: In a virtual machine, whose processor may be emulated.
_MACHINE_GRACE_S = 30.0
#: How late a command is before somebody else than its attendant ends it.
LATE_S = 0.5
#: What a pipe holds at most. pipe(7): a plain user can't make it longer.
_MOST_IN_PIPE = 1 << 20

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from collections.abc import Callable

    from immure.runtimes.base import Commands


class Exit:
    """How a command ended. `errno` is not 0 where it never started, and `step` says where.

    `draining`: DRAINED follows for each stream, once all of it is in its pipe that was written before.
    """

    __slots__ = ("cpu_ms", "draining", "errno", "memory_peak_bytes", "status", "step")

    def __init__(self, message: bytes) -> None:
        """Raises BoxLost for what is no EXITED."""
        if len(message) != frames.EXITED_BYTES:
            raise BoxLost("the box said something unreadable", need="how a command ended", have=f"{len(message)} bytes")
        self.draining = bool(int.from_bytes(message[2:4], "little") & frames.DRAINING)
        self._set(*frames.exit_parts(message))

    @classmethod
    def of(cls, status: int, errno: int, step: int, cpu_us: int, memory_peak_kib: int) -> Exit:
        """One that came otherwise."""
        seen = cls.__new__(cls)
        seen.draining = False
        seen._set(status, errno, step, cpu_us, memory_peak_kib)
        return seen

    def _set(self, status: int, errno: int, step: int, cpu_us: int, memory_peak_kib: int) -> None:
        self.status = status
        self.errno = errno
        self.step = frames.STEPS[step] if step < len(frames.STEPS) else "an unknown step"
        self.cpu_ms = cpu_us // 1000
        self.memory_peak_bytes = memory_peak_kib * 1024


class Sink:
    """Where one stream of output goes: kept in memory, or passed on to a descriptor."""

    __slots__ = ("count", "data", "fd", "late", "target", "truncated")

    def __init__(self, fd: int, target: int | None) -> None:
        self.fd = fd
        self.target = target
        #: What may be left of the command's own output, once its end was heard.
        self.late = _MOST_IN_PIPE
        self.data = bytearray()
        self.count = 0
        self.truncated = False

    def take(self, chunk: bytes, room: int | None) -> bool:
        """Keeps what there is room for. False where it was too much."""
        self.count += len(chunk)
        if room is not None and len(chunk) > room:
            self.truncated = True
            chunk = chunk[:room]
        if self.target is None:
            self.data += chunk
        else:
            _write_all(self.target, chunk)
        return not self.truncated

    def close(self) -> None:
        """Closes the end that is read."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Course:
    """One command from its start to its end. What waits for it is told by who takes part: `Attendance`, and others."""

    #: How it ended, once that is known.
    exit: Exit | None = None
    #: Nothing more can be meant for it.
    over = False
    timed_out = flooded = False
    #: Told of each chunk that is within the limit of output: which stream it is of, and the bytes.
    heard: Callable[[int, bytes], None] | None = None
    timeout_s: float | None = None
    _deadline: float | None = None
    #: When what does not end after `stop` is ended with its box.
    _last_call: float | None = None
    _late = _left = False

    def __init__(self, box: Commands, sinks: list[Sink], request: Request) -> None:
        self.box = box
        self.sinks = sinks
        self.room = request.output_bytes
        self._grace_s = _MACHINE_GRACE_S if request.launch.runtime in MACHINES else _GRACE_S
        #: Held while its end is decided: afterwards it may be another command that is meant.
        self._deciding = _thread.allocate_lock()
        if request.timeout_s is not None:
            self.begin_time(request.timeout_s)

    def begin_time(self, timeout_s: float) -> None:
        """It is to end within so many seconds from now on."""
        self.timeout_s, self._deadline = timeout_s, monotonic() + timeout_s

    def run(self) -> None:
        """Waits for its end. Raises BoxLost where the box is gone. On any exception the caller ends the command."""
        raise NotImplementedError

    def is_timed(self) -> bool:
        """Whether `check_time` is to be called."""
        return self._deadline is not None or self._last_call is not None

    def wait_ms(self) -> int | None:
        """How long to wait before `check_time`; None: until something comes."""
        due = self._deadline if self._last_call is None else self._last_call
        return None if due is None else max(0, int((due - monotonic()) * 1000) + 1)

    def check_time(self) -> None:
        """Ends what has run out of time."""
        now = monotonic()
        if self._last_call is not None:
            if now >= self._last_call:
                # In a box without namespaces a command can stop the stem, and with it our word to the command.
                self.box.kill()
                self._last_call = now + self._grace_s
        elif self._deadline is not None and now >= self._deadline:
            self.timed_out = True
            self.stop()

    def stop(self) -> None:
        """Ends the command, and what does not end then with all of its box."""
        self.signal(_SIGKILL, group=True)
        self._last_call = monotonic() + self._grace_s

    def overdue(self) -> float | None:
        """For another thread, when its time is over: ends what its attendant has not. Gives when to look again.

        Whoever reads or closes a pipe whose lock the kernel holds for a command waits, uninterruptibly, until that is
        gone. The guard refuses the calls that are known to hold it.
        """
        with self._deciding:
            if self._left:
                return None
            if self._late:
                # What it left behind outside of its group may hold the lock.
                self.box.kill()
            elif not self.over and self._last_call is None:
                self.timed_out = True
                self.stop()
            self._late = True
        return self._grace_s

    def leave(self) -> None:
        """Nothing of it is left to be held up by."""
        with self._deciding:
            self._left = True

    def signal(self, number: int, *, group: bool) -> None:
        """Sends a signal to the command, or to its process group."""
        raise NotImplementedError

    def keep(self, sink: Sink, chunk: bytes) -> None:
        """Takes what it has written, as much as there is room for, and ends one that writes more.

        Raises BrokenPipeError where that is passed on, and nobody reads it any more.
        """
        if self.flooded:
            return
        self._tell(sink, chunk[: self.room])
        fits = sink.take(chunk, self.room)
        if self.room is not None:
            self.room -= min(len(chunk), self.room)
        if not fits:
            self.flooded = True
            self.stop()

    def _tell(self, sink: Sink, chunk: bytes) -> None:
        if self.heard is not None:
            self.heard(self.sinks.index(sink), chunk)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
