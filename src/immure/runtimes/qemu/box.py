"""A box in a virtual machine: QEMU in an outer box of the process runtime, our init its guest's first process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from immure.channel.pump import Pump
from immure.errors import BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.plan.machine import CONSOLE
from immure.plan.qemu import OUTER_USER, OUTSIDE
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.attested import attestation, attested, outer_opens
from immure.runtimes.guest.box import Driver
from immure.runtimes.guest.carried import CarriedBox
from immure.runtimes.guest.outer import UnderWay, carrier_request
from immure.runtimes.guest.vmm import at_this_moment, carriers, reason_on, this_moment
from immure.runtimes.process.spawner import Spawner
from immure.runtimes.qemu.copies import begin_machine, copy_machine, wake_machine

#: An emulated kernel takes a second, and on a busy host some more.
START_S = 60.0
_CONSOLE_BYTES = 16 * 1024


class QemuBox(CarriedBox):
    """A box that QEMU carries."""

    step, failed = "qemu", "the machine did not come up"
    remedy = "see `immure doctor`; IMMURE_KERNEL names another kernel, IMMURE_QEMU another QEMU"

    def __init__(
        self,
        spawner: Spawner,
        launch: Launch,
        *,
        drive: Callable[[Pump], Driver],
        sources: list[int] | None = None,
        adopts: Adopts | None = None,
    ) -> None:
        """`adopts` has the machine that this one goes on from."""
        self._origin = adopts.machine if adopts is not None else None
        #: Held by whoever has the monitor: that can be one alone.
        self._copying = threading.Lock()
        first_word = this_moment if adopts is not None else partial(at_this_moment, launch.guest)
        super().__init__(spawner, launch, first_word, drive=drive, sources=sources, start_s=START_S, adopts=adopts)

    def _start_carrier(self, launch: Launch) -> tuple[int, int]:
        start = partial(self._asked_of_outer, builtin=True)
        self._vmm = begin_machine(start, launch) if self._origin is None else wake_machine(start, launch, self._origin)
        self._carrier, self._said = self._vmm.asker, self._vmm.said
        return self._vmm.take_channel()

    def _close_own(self) -> None:
        vmm = getattr(self, "_vmm", None)
        if vmm is not None:
            vmm.close()

    def checkpoint(self) -> Adopts:
        """What who goes on from here is to know, with a copy of the machine, which goes on itself.

        Raises SetupFailed where QEMU can't, BoxLost, and OSError where this host has no room.
        """
        with self._copying, self.parked() as found:
            return found._replace(machine=copy_machine(self._vmm))

    def seen_meanwhile(self) -> dict[str, bytes]:
        """The control of a file that is out of reach."""
        return {"inside/outer_opens": b"1" if outer_opens(self.outer, OUTSIDE, OUTER_USER) else b"0"}

    def seen(self) -> dict[str, bytes]:
        """What a command of the machine says, and what runs in the outer box."""
        with attestation(self, OUTSIDE) as attesting:
            items = carriers(self.pid)
            items.update({f"inside/{name}": value for name, value in attested(attesting).items()})
            return items

    def said(self) -> str:
        """What QEMU has said, or the kernel and our init on the console."""
        return super().said() or self._console()

    def _console(self) -> str:
        request = carrier_request(self.launch, ("files", "read", CONSOLE, "0", str(_CONSOLE_BYTES)), OUTER_USER)
        request.output_bytes = 2 * _CONSOLE_BYTES
        try:
            with UnderWay(self.outer, request, builtin=True) as reading:
                told = bytes(reading.ended().sinks[0].data).decode(errors="replace")
        except (BoxLost, SetupFailed):
            return ""
        return reason_on(told)
