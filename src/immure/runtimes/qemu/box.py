"""A box in a virtual machine: QEMU in an outer box of the process runtime, our init its guest's first process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from immure.channel.pump import Pump, close_all
from immure.errors import SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.guest.adopted import Adopts, AdoptsSoon
from immure.runtimes.guest.box import Driver
from immure.runtimes.guest.machine import MachineBox
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.migration import Migration
from immure.runtimes.guest.vmm import at_this_moment, this_moment
from immure.runtimes.process.box import Box
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, Spawner
from immure.runtimes.qemu.booted import Arrival
from immure.runtimes.qemu.copies import begin_machine, beside, copy_machine, empty_copy, move_machine, wake_machine
from immure.runtimes.qemu.saying import FAILED, REMEDY, STEP, said_by
from immure.runtimes.qemu.vmm import Vmm

#: An emulated kernel takes a second, and on a busy host some more.
START_S = 60.0


class QemuBox(MachineBox):
    """A box that QEMU carries."""

    step, failed, remedy = STEP, FAILED, REMEDY

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
        self._arrives = False
        #: What was seen of the outer box that it has moved to.
        self._moved_to: dict[str, bytes] = {}
        #: Held by whoever has the monitor: that can be one alone.
        self._copying = threading.Lock()
        first_word = this_moment if adopts is not None else partial(at_this_moment, launch.guest)
        super().__init__(spawner, launch, first_word, drive=drive, sources=sources, start_s=START_S, adopts=adopts)
        if self._arrives:
            arrive = Arrival(self._vmm, self._bridge.pump, launch.booted)
            threading.Thread(target=arrive, name="immure-machine", daemon=True).start()

    def _start_carrier(self, launch: Launch) -> tuple[int, int]:
        start = partial(self._asked_of_outer, builtin=True)
        origin, self._origin = self._origin, None
        if origin is not None and origin.machine is not None:
            self._vmm = wake_machine(start, launch, origin, origin.machine)
        else:
            self._arrives = bool(launch.booted)
            self._vmm = begin_machine(start, launch, waits=self._arrives)
        self._carrier, self._said = self._vmm.asker, self._vmm.said
        # It is joined once there is a machine that has said hello.
        return (-1, -1) if self._arrives else self._vmm.take_channel()

    def _close_own(self) -> None:
        vmm = getattr(self, "_vmm", None)
        if vmm is not None:
            vmm.close()

    def checkpoint(self, above: Path) -> Adopts:
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
            return Vmm(start, self.launch, memory=self._vmm.memory, disk=self._vmm.disk, waits=True)
        # What it shares with others stays as it is.
        return beside(start, self.launch, disk=self._vmm.disk)

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
            close_all(self._bridge.pump.leave())
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
        return said_by(self._said, self.outer, self.launch)


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
