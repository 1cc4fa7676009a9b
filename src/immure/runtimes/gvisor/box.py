"""A box in a Sentry: an outer box of the process runtime, `runsc` in it, and our init within that, behind a channel."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from immure.channel.pump import IN, Pump
from immure.errors import BoxLost, SetupFailed
from immure.plan.gvisor import CONTAINER, OUTSIDE, runsc_options
from immure.plan.launch import Launch
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.box import Driver
from immure.runtimes.guest.carried import CarriedBox
from immure.runtimes.guest.outer import attended, carrier_request
from immure.runtimes.gvisor.images import make_folder, take_over
from immure.runtimes.gvisor.sentry import SentryReading, gofers
from immure.runtimes.process.spawner import Spawner

#: How long a Sentry and its init may take to greet, and an image to be written.
START_S, CHECKPOINT_S = 30.0, 120.0
#: How long what has started a Sentry may go on beside it.
_CARRIER_S = 5.0


def _nothing() -> bytes:
    """A Sentry that is restored knows the time, and draws from this host's randomness."""
    return b""


def _end_without_gofer(pump: Pump, _event: int = IN) -> None:
    have = "its gofer, which opens files for its kernel, has ended"
    pump.end(BoxLost("the box has ended", need="a box in use", have=have, hint="make a new Sandbox"))


class GVisorBox(CarriedBox):
    """A box that `runsc` carries."""

    outside = OUTSIDE
    step, failed = "runsc", "gVisor could not make the box"
    remedy = "see `immure doctor`; `IMMURE_RUNSC` names another runsc"

    def __init__(
        self,
        spawner: Spawner,
        launch: Launch,
        *,
        drive: Callable[[Pump], Driver],
        sources: list[int] | None = None,
        adopts: Adopts | None = None,
    ) -> None:
        """`adopts` is for a Sentry that is restored."""
        #: Process descriptors.
        self._gofers: list[int] = []
        #: Held by whoever has its Sentry report: that can be one alone.
        self.tracing = threading.Lock()
        first_word = _nothing if adopts is not None else lambda: launch.guest
        super().__init__(
            spawner, launch, first_word, drive=drive, start_s=START_S, sources=sources, adopts=adopts, ahead=True
        )

    def wait_for_carrier(self) -> None:
        """Waits for the first word within: since before that the Sentry is under its filters."""
        self._bridge.greeted.wait()

    def seen_out_here(self) -> dict[str, bytes]:
        """What runs in the outer box."""
        with SentryReading(self.pid, root=self.launch.root) as reading:
            self._wait_for_starter()
            items = reading.items()
        for pid in gofers(items):
            self._end_with(pid)
        return items

    def _end_with(self, gofer: int) -> None:
        """Has the box end with its gofer: a Sentry does not always notice that it has none, and then hangs."""
        pump = self._bridge.pump
        with pump.lock:
            try:
                fd = os.pidfd_open(gofer)
            except ProcessLookupError:
                _end_without_gofer(pump)
                return
            if pump.is_over:
                os.close(fd)
                return
            self._gofers.append(fd)
            # Nothing of the box: one that nobody holds is to end.
            pump.watch(fd, IN, partial(_end_without_gofer, pump))

    def _close_own(self) -> None:
        while self._gofers:
            pump, fd = self._bridge.pump, self._gofers.pop()
            with pump.lock:
                if not pump.is_closed:
                    pump.unwatch(fd)
                os.close(fd)
        super()._close_own()

    def _wait_for_starter(self) -> None:
        """What has started the Sentry needs no filter, and so is not to be found any more. One that stays is judged."""
        poll = select.poll()
        poll.register(self._carrier.fileno(), select.POLLIN)
        poll.poll(_CARRIER_S * 1000)

    def checkpoint(self, above: Path) -> Adopts:
        """Writes an image of the Sentry below a private folder, and lets it go on.

        Gives what who restores it is to know. Raises SetupFailed where runsc can't.
        """
        folder = make_folder(above)
        try:
            with self.parked() as found:
                self._run_checkpoint(folder)
        finally:
            os.close(folder)
        take_over(above, root=self.launch.root)
        return found

    def _run_checkpoint(self, folder: int) -> None:
        # A folder is no standard input of any command but this one, which is ours.
        wanted = ("checkpoint", "--leave-running", "--image-path=/proc/self/fd/0", CONTAINER)
        argv = (*runsc_options(self.launch.carrier), *wanted)
        request = carrier_request(self.launch, argv)
        request.timeout_s = CHECKPOINT_S
        attendance = attended(self.outer, request, folder)
        seen = attendance.exit
        if seen is None or seen.errno or seen.status:
            said = bytes(attendance.sinks[1].data).decode(errors="replace").strip().splitlines()
            raise SetupFailed(
                "gVisor could not make a snapshot of the box",
                step="checkpoint",
                have=said[-1][:1000] if said else "no answer in time" if attendance.timed_out else None,
            )
