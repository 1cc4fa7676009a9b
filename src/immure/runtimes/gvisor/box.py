"""A box in a Sentry: an outer box of the process runtime, `runsc` in it, and our init within that, behind a channel."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from immure.channel.pump import Pump
from immure.errors import BoxError, BoxLost, SetupFailed
from immure.plan.gvisor import CONTAINER, OUTSIDE, runsc_options
from immure.plan.image import SENTINEL
from immure.plan.launch import Launch
from immure.runtimes.base import Commands
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.box import Driver, GuestBox
from immure.runtimes.gvisor.images import make_folder, take_over
from immure.runtimes.gvisor.outer import STEP_S, UnderWay, attended, carrier_request
from immure.runtimes.gvisor.sentry import SentryReading
from immure.runtimes.process.box import Box
from immure.runtimes.process.cgroups import oom_kills
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, Spawner
from immure.runtimes.process.stem import Ended

#: How long a Sentry and its init may take to greet, and an image to be written.
START_S, CHECKPOINT_S = 30.0, 120.0
#: How long what has started a Sentry may go on beside it.
_CARRIER_S = 5.0
_SAID_BYTES = 16 * 1024
_ATTESTED_BYTES = 256 * 1024


class GVisorBox(GuestBox):
    """`ready()` comes first; `close()` ends it all. The outer box owns everything: what ends it leaves nothing behind.

    `drive` begins to step its channel's pump, as for any `GuestBox`.
    """

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
        #: Held by whoever has its Sentry report: that can be one alone.
        self.tracing = threading.Lock()
        self.outer = Box(spawner, launch, one_shot=False, sources=sources)
        self._said = -1
        self._cgroup: bytes | None = None
        try:
            receives, sends = self._start_sentry(launch)
            super().__init__(
                receives,
                sends,
                launch,
                launch.guest,
                pid=0,
                drive=drive,
                end=self._end_outer,
                start_s=START_S,
                adopts=adopts,
            )
        except BaseException:
            self._end_outer()
            raise

    def _start_sentry(self, launch: Launch) -> tuple[int, int]:
        """Has `runsc` started with a pipe to read, one to write and one for what it says. Gives our ends of the two."""
        first, sends = os.pipe2(os.O_CLOEXEC)
        receives, second = os.pipe2(os.O_CLOEXEC)
        self._said, third = os.pipe2(os.O_CLOEXEC)
        try:
            for fd in (first, second, third):
                # gVisor of 2024 lets a command open those of our init by /proc/1/fd.
                os.fchmod(fd, 0)
            request = carrier_request(launch, launch.carrier)
            self._carrier = self._asked_of_outer(request, (first, second, third))
        except BaseException:
            os.close(sends)
            os.close(receives)
            raise
        finally:
            for fd in (first, second, third):
                os.close(fd)
        os.set_blocking(self._said, False)
        return receives, sends

    def _asked_of_outer(self, request: Request, stdio: tuple[int, int, int]) -> Socket:
        try:
            return self.outer.start(request.payload(), stdio)
        except BoxLost:
            # Where it has failed already, it says why.
            self.outer.ready()
            raise

    def ready(self) -> dict[str, bytes]:
        """Waits until commands can be asked for, and gives what was seen of the Sentry from both sides.

        Raises SetupFailed where runsc says why it can't, and BoxLost.
        """
        items = dict(self.outer.ready())
        self.outer.release()
        self.pid, self._cgroup = self.outer.pid, items.get("cgroup.name")
        try:
            # While runsc starts.
            items["inside/outer_opens"] = b"1" if self._outer_opens() else b"0"
            super().ready()
            items.update(self._seen())
        except BoxLost as error:
            raise self._explained(error) from error
        return items

    def _seen(self) -> dict[str, bytes]:
        """What is said within, and what is read out here meanwhile."""
        with (
            _operation(self, self._attestation(), _ATTESTED_BYTES) as attesting,
            SentryReading(self.pid, root=self.launch.root) as reading,
        ):
            self._wait_for_carrier()
            items = reading.items()
            items.update({f"inside/{name}": value for name, value in _attested(attesting).items()})
            return items

    def _wait_for_carrier(self) -> None:
        """What has started the Sentry needs no filter, and so is not to be found any more. One that stays is judged."""
        poll = select.poll()
        poll.register(self._carrier.fileno(), select.POLLIN)
        poll.poll(_CARRIER_S * 1000)

    def _attestation(self) -> Request:
        """A process that has passed the last stage says of itself what it is. Its word is judged elsewhere."""
        request = Request(self.launch, [b"attest", OUTSIDE.encode(), b"/" + SENTINEL.encode()])
        # The commands' own may be something that is made yet.
        request.workdir = "/"
        return request

    def _outer_opens(self) -> bool:
        """The control of what no workload may open: there it is, one wall further out."""
        request = carrier_request(self.launch, ("files", "read", OUTSIDE, "0", "64"))
        with _operation(self.outer, request, 64) as reading:
            return bool(_output(reading))

    def _explained(self, error: BoxError) -> BoxError:
        """What runsc said, where it did not come to a box."""
        try:
            said = os.read(self._said, _SAID_BYTES).decode(errors="replace").strip()
        except OSError:
            said = ""
        if not said:
            return error
        return SetupFailed(
            "gVisor could not make the box",
            step="runsc",
            have=said.splitlines()[-1][:1000],
            hint="see `immure doctor`; `IMMURE_RUNSC` names another runsc",
        )

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

    def ran_out(self) -> bool:
        """Whether this host's kernel has ended something of it for memory, which a Sentry does not survive."""
        return not super().alive() and oom_kills(self.launch, self._cgroup) > 0

    def kill(self) -> None:
        """Ends the outer box, and so all of it, at once."""
        self._asked_to_end = True
        self._timer.cancel()
        self.outer.kill()

    def alive(self) -> bool:
        """Whether its channel is open, and the outer box is there."""
        return super().alive() and self.outer.alive()

    def wait_end(self) -> Ended:
        """Waits until every process of the outer box is gone; what was counted there is the box's."""
        self.ended = self.outer.wait_end()
        return self.ended

    def close(self) -> None:
        """Ends the box and waits until it is gone."""
        if self.left:
            return
        super().close()
        self.ended = self.outer.ended or self.ended

    def _end_outer(self) -> None:
        try:
            self.outer.close()
        finally:
            self._close_own()

    def _close_own(self) -> None:
        carrier = getattr(self, "_carrier", None)
        if carrier is not None:
            carrier.close()
        if self._said >= 0:
            os.close(self._said)
            self._said = -1

    def __del__(self) -> None:
        # Nobody waits for the outer box, which ends as any that nobody holds.
        if hasattr(self, "_driver"):
            self._end_host = None
            self._let_go()
        if hasattr(self, "_said"):
            self._close_own()


def _operation(box: Commands, request: Request, most: int) -> UnderWay:
    """An operation of the native program, of which `most` bytes are taken."""
    request.timeout_s, request.output_bytes = STEP_S, most
    return UnderWay(box, request, builtin=True)


def _output(operation: UnderWay) -> bytes:
    """What it has written in the end. Raises SetupFailed where it can't be done and BoxLost where it does not end."""
    attendance = operation.ended()
    seen = attendance.exit
    if seen is not None and seen.errno:
        raise SetupFailed(
            f"the box's kernel can't do what its commands need: {seen.step}",
            step=seen.step,
            errno=seen.errno,
            have=os.strerror(seen.errno),
            hint="runsc of 2024 keeps no capabilities for other users than 0: use a newer one"
            if seen.step == "capabilities"
            else None,
        )
    if seen is None or seen.status or attendance.timed_out or attendance.flooded:
        raise BoxLost("the box does not attest itself", have="no answer" if seen is None else f"status {seen.status}")
    return bytes(attendance.sinks[0].data)


def _attested(attesting: UnderWay) -> dict[str, bytes]:
    said = _output(attesting)
    try:
        return msgspec.msgpack.decode(said, type=dict[str, bytes])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BoxLost("the box's attestation can't be read", have=str(error)) from error
