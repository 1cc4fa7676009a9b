"""A box in a virtual machine: QEMU in an outer box of the process runtime, our init its guest's first process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

import msgspec

from immure.channel.pump import Pump
from immure.errors import BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.plan.machine import CONSOLE
from immure.plan.qemu import OUTER_USER
from immure.runtimes.guest.adopted import Adopts, AdoptsSoon
from immure.runtimes.guest.box import Driver
from immure.runtimes.guest.machine import MachineBox
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.outer import UnderWay, carrier_request
from immure.runtimes.guest.vmm import at_this_moment, reason_on, this_moment
from immure.runtimes.process.box import Box
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, Spawner
from immure.runtimes.qemu.copies import begin_machine, copy_machine, empty_copy, move_machine, wake_machine
from immure.runtimes.qemu.vmm import Vmm

#: An emulated kernel takes a second, and on a busy host some more.
START_S = 60.0
_CONSOLE_BYTES = 16 * 1024


class Migration(msgspec.Struct, frozen=True):
    """How a machine was moved: for how long it stood still, and how long it all took, in seconds."""

    downtime_s: float
    total_s: float


class QemuBox(MachineBox):
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
        self._origin = adopts
        #: What was seen of the outer box that it has moved to.
        self._moved_to: dict[str, bytes] = {}
        #: Held by whoever has the monitor: that can be one alone.
        self._copying = threading.Lock()
        first_word = this_moment if adopts is not None else partial(at_this_moment, launch.guest)
        super().__init__(spawner, launch, first_word, drive=drive, sources=sources, start_s=START_S, adopts=adopts)

    def _start_carrier(self, launch: Launch) -> tuple[int, int]:
        start = partial(self._asked_of_outer, builtin=True)
        origin, self._origin = self._origin, None
        if origin is not None and origin.machine is not None:
            self._vmm = wake_machine(start, launch, origin, origin.machine)
        else:
            self._vmm = begin_machine(start, launch)
        self._carrier, self._said = self._vmm.asker, self._vmm.said
        return self._vmm.take_channel()

    def _close_own(self) -> None:
        vmm = getattr(self, "_vmm", None)
        if vmm is not None:
            vmm.close()

    def checkpoint(self) -> Adopts:
        """What who goes on from here is to know, with a copy of the machine, which goes on itself.

        Raises SetupFailed where QEMU can't, or this host has no room, and BoxLost.
        """
        copy = self._empty_copy()
        try:
            return self._checkpoint(copy)
        except BaseException:
            copy.close()
            raise

    def begin_checkpoint(self) -> Adopts:
        """The same, beside what the caller does with it. What it raises comes of what it gives."""
        copy = self._empty_copy()
        return AdoptsSoon(copy, partial(self._checkpoint, copy))

    def migrate(self, spawner: Spawner) -> Migration:
        """Moves the machine to another QEMU, in another outer box; it is to be measured anew then.

        Raises SetupFailed where that can't be, and the machine goes on where it was; BoxLost where it is lost.
        """
        began_s = time.monotonic()
        outer = Box(spawner, self.launch, one_shot=False)
        try:
            items = dict(outer.ready())
            outer.release()
            vmm = self._begin_beside(outer)
            with self._copying, self.parked():
                downtime_s = self._moved(vmm)
                self._take_over(outer, vmm, items)
        except BaseException:
            outer.close()
            raise
        return Migration(downtime_s=downtime_s, total_s=time.monotonic() - began_s)

    def _begin_beside(self, outer: Box) -> Vmm:
        def start(request: Request, stdio: tuple[int, int, int]) -> Socket:
            return outer.start(request.payload(), stdio, builtin=True)

        if self._vmm.shared:
            return Vmm(start, self.launch, memory=self._vmm.memory, waits=True)
        # What it shares with others stays as it is.
        return begin_machine(start, self.launch, waits=True)

    def _moved(self, vmm: Vmm) -> float:
        try:
            return move_machine(self._vmm, vmm)
        except BaseException as error:
            vmm.close()
            if not isinstance(error, SetupFailed):
                # It may run there, and must not run twice.
                self.kill()
            raise

    def _take_over(self, outer: Box, vmm: Vmm, items: dict[str, bytes]) -> None:
        with self._bridge.pump.lock:
            self._bridge.pump.leave()
            self._bridge.pump.join(*vmm.take_channel())
        old, self.outer = self.outer, outer
        self._vmm.close()
        self._vmm, self._carrier, self._said = vmm, vmm.asker, vmm.said
        self._moved_to = items
        old.close()

    def _outer_ready(self) -> dict[str, bytes]:
        return self._moved_to or super()._outer_ready()

    def _empty_copy(self) -> MachineCopy:
        with _room_for_copies():
            return empty_copy(self._vmm, self.launch)

    def _checkpoint(self, copy: MachineCopy) -> Adopts:
        with self._copying, self.parked() as found, _room_for_copies():
            copy_machine(self._vmm, copy)
            return Adopts(found.last_stream, found.commands, copy)

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


@contextmanager
def _room_for_copies() -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise SetupFailed(
            "the machine can't be copied",
            step="copy",
            errno=error.errno or 0,
            have=os.strerror(error.errno or 0),
            hint="a copy takes as much memory as the machine has used",
        ) from error
