"""One Firecracker in an outer box: its console, the way to it and its guest, and copies of the machine as it stands.

A copy goes out through memory that Firecracker has from its start: nothing of this host can be written from there.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from immure.errors import BoxLost, SetupFailed, VmmRefused
from immure.plan.firecracker import MEMORY, STATE
from immure.plan.launch import Launch
from immure.plan.machine import OUTER_USER
from immure.runtimes.base import Commands
from immure.runtimes.firecracker import models
from immure.runtimes.firecracker.reach import Reach
from immure.runtimes.guest.disk import fill_disk
from immure.runtimes.guest.memory import empty_memory, make_memory
from immure.runtimes.guest.outer import attended, carrier_request
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, pair, send

#: Has an operation of the native program started in an outer box.
Start = Callable[[Request, tuple[int, int, int]], Socket]

#: All that is kept of what a machine says on its console, where it says more.
_CONSOLE_BYTES = 64 * 1024
#: Some 20 KiB, for a machine of ours.
_STATE_BYTES = 4 << 20
#: In the outer box.
_STATE = "/tmp/state"
#: Has a program started with more descriptors, the first in the place of its standard output.
_CARRY, _OUTPUT_TOO = "carry", b"1"
#: What a memory is written to, as Firecracker has it. Its own disk is next, if there is one, and then the memory and
#: the rest of a copy.
_TARGET_FD = 3
_COPY_S = 300.0


class Monitor:
    """A Firecracker that `start` has started. It owns its descriptors; it ends with the outer box.

    `command` is where its end is told, `said` what it writes of itself.
    """

    def __init__(
        self, outer: Commands, launch: Launch, start: Start, *, disk: int | None, copied: tuple[int, int] | None = None
    ) -> None:
        """`disk` is its own, if it has one; `copied` are the memory and the rest of a machine that it is to go on from.
        All stay the caller's.

        Raises BoxLost.
        """
        self._outer, self._launch = outer, launch
        self._memory_bytes = int(str(launch.expected["memory_mib"])) << 20
        self._disk: int | None = None
        self._copied: tuple[str, str] | None = None
        self._console = self._target = self.said = -1
        try:
            self._console = make_memory(_CONSOLE_BYTES, bounded=True)
            self._target = make_memory(self._memory_bytes, bounded=True)
            self._disk = os.dup(disk) if disk is not None else None
            given = [self._target, *([] if disk is None else [disk])]
            if copied is not None:
                first = _TARGET_FD + len(given)
                self._copied = _opened(first), _opened(first + 1)
            self.command = self._started(start, [self._console, *given, *(copied or ())])
        except BaseException:
            self.close()
            raise
        command = self.command
        self.reach = Reach(outer, launch, lambda: _has_ended(command))

    def _started(self, start: Start, fds: list[int]) -> Socket:
        self.said, says = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.said, False)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        ours, theirs = pair()
        try:
            send(ours, _OUTPUT_TOO, fds)
            request = carrier_request(self._launch, (_CARRY, *self._launch.carrier), OUTER_USER)
            return start(request, (nothing, theirs.fileno(), says))
        finally:
            ours.close()
            theirs.close()
            os.close(nothing)
            os.close(says)

    def console(self) -> bytes:
        """The beginning of all that was said on the machine's console, 64 KiB at most."""
        if self._console < 0:
            return b""
        return os.pread(self._console, _CONSOLE_BYTES, 0).rstrip(b"\0")

    def go_on(self, until: float) -> None:
        """Has it go on from a copy, or where there is none from what its plan names. Raises SetupFailed and BoxLost."""
        memory, state = self._copied or (MEMORY, STATE)
        backend = models.MemoryBackend(backend_type="File", backend_path=memory)
        client = self.reach.client(until)
        try:
            client.load_snapshot(models.SnapshotLoad(snapshot_path=state, mem_backend=backend, resume_vm=True))
        except VmmRefused as error:
            raise SetupFailed(
                "the machine can't go on from the memory of another",
                step="restore",
                need="one of a host like this, and of this version of Firecracker",
                have=error.have,
                hint=None if self._copied else "try again: another one is made",
            ) from error
        finally:
            client.close()

    def freeze(self, disk: int | None) -> tuple[int, bytes]:
        """A file with the memory of the machine as it stands, which is this one's own, and the rest of it. What is on
        its disk is copied to an empty one, if that is given.

        It stands still for that and goes on, its connections cut. `thaw` lets go of the memory. Raises SetupFailed,
        BoxLost, and OSError where this host has no room.
        """
        client = self.reach.client(time.monotonic() + _COPY_S)
        wanted = models.SnapshotCreate(snapshot_path=_STATE, mem_file_path=_opened(_TARGET_FD), snapshot_type="Full")
        try:
            client.pause()
            try:
                client.create_snapshot(wanted)
                if disk is not None:
                    assert self._disk is not None
                    fill_disk(self._disk, disk)
            finally:
                client.resume()
        except VmmRefused as error:
            raise SetupFailed("the machine can't be copied", step="snapshot", have=error.have) from error
        finally:
            client.close()
        return self._target, self._state()

    def thaw(self) -> None:
        """What was copied is somewhere else by now, and is not to take this host's memory here."""
        empty_memory(self._target)

    def _state(self) -> bytes:
        request = carrier_request(self._launch, ("files", "read", _STATE, "0", str(_STATE_BYTES)), OUTER_USER)
        request.output_bytes = 2 * _STATE_BYTES
        attendance = attended(self._outer, request, builtin=True)
        state = bytes(attendance.sinks[0].data)
        if attendance.exit is None or attendance.exit.status or not 0 < len(state) < _STATE_BYTES:
            raise BoxLost(
                "the copy of a machine can't be read",
                need=f"a state below {_STATE_BYTES} bytes",
                have=f"{len(state)} of them",
            )
        return state

    def close(self) -> None:
        """Lets go of what it is seen by, but for its end and what it says of itself."""
        fds, self._console, self._target, self._disk = (self._console, self._target, self._disk), -1, -1, None
        for fd in fds:
            if fd is not None and fd >= 0:
                os.close(fd)


def _opened(number: int) -> str:
    return f"/proc/self/fd/{number}"


def _has_ended(command: Socket) -> bool:
    """Whether something was said of it, which is its end, or nobody listens any more."""
    fd = command.fileno()
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
