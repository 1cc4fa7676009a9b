"""A box with a kernel of its own: what carries it is in an outer box of the process runtime, and our init within."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from immure.channel.pump import Pump
from immure.errors import BoxError, BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.attested import attestation, outer_opens
from immure.runtimes.guest.box import Driver, GuestBox
from immure.runtimes.guest.outer import carrier_request
from immure.runtimes.process.box import Box
from immure.runtimes.process.cgroups import oom_kills
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, Spawner
from immure.runtimes.process.stem import Ended

_SAID_BYTES = 16 * 1024
_MOST_SAID = 1000


class CarriedBox(GuestBox):
    """`ready()` comes first; `close()` ends it all. The outer box owns everything: what ends it leaves nothing behind.

    `drive` begins to step its channel's pump, as for any `GuestBox`. `step` is what a failure of the carrier is called,
    `failed` the sentence and `remedy` what to do.
    """

    step, failed, remedy = "carrier", "the box could not be made", "see `immure doctor`"
    #: A file of the outer box, which nobody within may open, and who of there may.
    outside: str
    carrier_user = 0

    def __init__(
        self,
        spawner: Spawner,
        launch: Launch,
        first_word: Callable[[], bytes],
        *,
        drive: Callable[[Pump], Driver],
        start_s: float,
        sources: list[int] | None = None,
        adopts: Adopts | None = None,
        greeted: bool = False,
        ahead: bool = False,
    ) -> None:
        """The carrier and the init within have `start_s` to greet. `adopts` is for a kernel that is restored."""
        self.outer = Box(spawner, launch, one_shot=False, sources=sources)
        self._said = -1
        self._cgroup: bytes | None = None
        try:
            receives, sends = self._start_carrier(launch)
            super().__init__(
                receives,
                sends,
                launch,
                first_word,
                pid=0,
                drive=drive,
                end=self._end_outer,
                start_s=start_s,
                adopts=adopts,
                greeted=greeted,
                ahead=ahead,
            )
        except BaseException:
            self._end_outer()
            raise

    def _start_carrier(self, launch: Launch) -> tuple[int, int]:
        """Has it started with a pipe to read, one to write and one for what it says. Gives our ends of the two."""
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

    def _asked_of_outer(self, request: Request, stdio: tuple[int, int, int], *, builtin: bool = False) -> Socket:
        try:
            return self.outer.start(request.payload(), stdio, builtin=builtin)
        except BoxLost:
            # Where it has failed already, it says why.
            self.outer.ready()
            raise

    def ready(self) -> dict[str, bytes]:
        """Waits until commands can be asked for, and gives what was seen of the box from both sides.

        Raises SetupFailed where the carrier says why it can't, and BoxLost.
        """
        items = self._outer_ready()
        self.pid, self._cgroup = self.outer.pid, items.get("cgroup.name")
        try:
            # It is the first that the guest does, with no word in between.
            with attestation(self, self.outside) as attesting:
                items.update(self._seen_meanwhile())
                self.wait_for_carrier()
                if self.alive():
                    items.update(self.seen_out_here())
                super().ready()
                items.update({f"inside/{name}": value for name, value in attesting.items().items()})
        except BoxLost as error:
            raise self._explained(error) from error
        return items

    def _seen_meanwhile(self) -> dict[str, bytes]:
        """The control of a file that is out of reach, while the carrier starts."""
        opens = outer_opens(self.outer, self.outside, self.carrier_user)
        return {"inside/outer_opens": b"1" if opens else b"0"}

    def _outer_ready(self) -> dict[str, bytes]:
        """What was seen of the outer box, whose commands run from now on."""
        items = dict(self.outer.ready())
        self.outer.release()
        return items

    def wait_for_carrier(self) -> None:
        """Waits until what carries it can be looked at, or has ended. Raises as `ready`."""
        super().ready()

    def seen_out_here(self) -> dict[str, bytes]:
        """What this host's kernel says of what runs in the outer box."""
        raise NotImplementedError

    def checkpoint(self, above: Path) -> Adopts:
        """What who goes on from here is to know, with a copy of its kernel, which goes on itself.

        `above` is a private folder for what of it is files. Raises SetupFailed where it can't be made, and BoxLost.
        """
        raise NotImplementedError

    def begin_checkpoint(self) -> Adopts | None:
        """The same, beside what the caller does with it, and without files; None where a copy can't be begun so. What
        it raises comes of what it gives.
        """
        return None

    def said(self) -> str:
        """What the carrier has said, where it did not come to a box."""
        try:
            return os.read(self._said, _SAID_BYTES).decode(errors="replace").strip()
        except OSError:
            return ""

    def _explained(self, error: BoxError) -> BoxError:
        said = self.said()
        if not said:
            return error
        self.outer.check_spawner()
        return SetupFailed(self.failed, step=self.step, have=said.splitlines()[-1][:_MOST_SAID], hint=self.remedy)

    def ran_out(self) -> bool:
        """Whether this host's kernel has ended something of it for memory, which the carrier does not survive."""
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
