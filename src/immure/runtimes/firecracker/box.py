"""A box in a machine of Firecracker's, which runs in an outer box; our init is its guest's first process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from immure.channel.pump import Pump, close_all
from immure.errors import BoxError
from immure.plan.firecracker import CONFIG
from immure.plan.launch import Launch
from immure.runtimes.firecracker.monitor import Monitor
from immure.runtimes.firecracker.reach import two_of
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.box import Driver
from immure.runtimes.guest.disk import closing, copied_disk, empty_disk, new_disk
from immure.runtimes.guest.machine import MachineBox
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.memory import sealed_bytes, sealed_pieces
from immure.runtimes.guest.vmm import at_this_moment, reason_on, this_moment
from immure.runtimes.process.spawner import Spawner

#: Where KVM interprets a guest's kernel a boot takes 20 to 30 s, and on a busy host many more.
BOOT_S, RESTORE_S = 180.0, 60.0


class FirecrackerBox(MachineBox):
    """A box that Firecracker carries. It boots, or goes on from the memory that its plan names."""

    step, failed = "firecracker", "the machine did not come up"
    remedy = "see `immure doctor`; IMMURE_KERNEL names another kernel, IMMURE_FIRECRACKER another Firecracker"
    _monitor: Monitor

    def __init__(
        self,
        spawner: Spawner,
        launch: Launch,
        *,
        drive: Callable[[Pump], Driver],
        sources: list[int] | None = None,
        adopts: Adopts | None = None,
    ) -> None:
        """`adopts` has the machine that this one goes on from, where it is not one that has only booted."""
        self._origin = adopts.machine if adopts is not None else None
        #: Held by whoever copies it: that can be one alone.
        self._copying = threading.Lock()
        boots = CONFIG in launch.carrier
        within_s = BOOT_S if boots else RESTORE_S
        first_word = this_moment if adopts is not None else lambda: at_this_moment(launch.guest)
        super().__init__(
            spawner, launch, first_word, drive=drive, sources=sources, start_s=within_s, adopts=adopts, greeted=True
        )
        arrive = _Arrival(self._monitor, self._bridge.pump, time.monotonic() + within_s, boots=boots)
        threading.Thread(target=arrive, name="immure-machine", daemon=True).start()

    def _start_carrier(self, launch: Launch) -> tuple[int, int]:
        """Has it started. The channel is made later."""
        origin = self._origin
        copied = (origin.memory, origin.state) if origin is not None and origin.memory is not None else None
        asks = partial(self._asked_of_outer, builtin=True)
        with closing(_disk_of(launch, origin)) as disk:
            self._monitor = Monitor(self.outer, launch, asks, disk=disk, copied=copied)
        self._carrier, self._said = self._monitor.command, self._monitor.said
        return -1, -1

    def checkpoint(self, above: Path) -> Adopts:
        """What who goes on from here is to know, with a copy of the machine, which goes on itself.

        Raises SetupFailed where Firecracker can't, BoxLost, and OSError where this host has no room.
        """
        with self._copying, closing(empty_disk(self.launch)) as disk:
            with self.parked() as standing:
                # The guest's kernel cuts all connections of a machine that was copied, some time after it has gone on.
                # This one stays until then, so that our init does not take one before that it would lose.
                before = self._bridge.pump.leave()
                try:
                    try:
                        memory, state = self._monitor.freeze(disk)
                    finally:
                        self._meet_again()
                finally:
                    close_all(before)
            try:
                copied = MachineCopy(sealed_bytes(state), None)
                copied.memory = sealed_pieces(memory)
                copied.disk = os.dup(disk) if disk is not None else None
            finally:
                self._monitor.thaw()
            return Adopts(standing.last_stream, standing.commands, copied)

    def _meet_again(self) -> None:
        """The guest, which is parked, waits for its host to connect. Without one the box is given up."""
        bridge = self._bridge
        try:
            # It knows us, and what it says of itself.
            connection, _ = self._monitor.reach.guest(time.monotonic() + RESTORE_S)
        except BoxError as error:
            with bridge.pump.lock:
                bridge.pump.end(error)
            raise
        bridge.pump.join(*two_of(connection))

    def said(self) -> str:
        """What Firecracker, the kernel and our init have said."""
        return reason_on(self.console().decode(errors="replace")) or super().said()

    def console(self) -> bytes:
        """The beginning of all that was said on the machine's console, 64 KiB at most."""
        return self._monitor.console()

    def _close_own(self) -> None:
        super()._close_own()
        monitor = getattr(self, "_monitor", None)
        if monitor is not None:
            monitor.close()


def _disk_of(launch: Launch, origin: MachineCopy | None) -> int | None:
    """Its own, if it has one: what was on that of another, or nothing yet."""
    if origin is None or origin.disk is None:
        return new_disk(launch)
    return copied_disk(origin.disk, launch)


class _Arrival:
    """Waits for the guest of a machine, and joins its channel. It holds nothing of the box that it is made for."""

    def __init__(self, monitor: Monitor, pump: Pump, until: float, *, boots: bool) -> None:
        self._monitor, self._pump, self._until = monitor, pump, until
        self._boots = boots

    def __call__(self) -> None:
        try:
            if not self._boots:
                self._monitor.go_on(self._until)
            connection, greeting = self._monitor.reach.guest(self._until)
            self._pump.join(*two_of(connection), greeting)
        except BoxError as error:
            with self._pump.lock:
                self._pump.end(error)
