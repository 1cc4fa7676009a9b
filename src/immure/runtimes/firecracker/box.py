"""A box in a machine of Firecracker's: that in an outer box of the process runtime, our init its guest's first process."""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections.abc import Callable

from immure.channel.pump import Pump
from immure.errors import BoxError, SetupFailed, VmmRefused
from immure.plan.firecracker import CONFIG, MEMORY, STATE
from immure.plan.launch import Launch
from immure.plan.qemu import OUTER_USER, OUTSIDE
from immure.runtimes.firecracker import models
from immure.runtimes.firecracker.reach import Reach, two_of
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.attested import attestation, attested, outer_opens
from immure.runtimes.guest.box import Driver
from immure.runtimes.guest.carried import CarriedBox
from immure.runtimes.guest.outer import carrier_request
from immure.runtimes.guest.vmm import at_this_moment, carriers, reason_on, this_moment
from immure.runtimes.process.spawner import Socket, Spawner

#: Where KVM interprets a guest's kernel a boot takes 20 to 30 s, and on a busy host many more.
BOOT_S, RESTORE_S = 180.0, 60.0
#: All that is kept of what a machine says on its console, where it says more.
_CONSOLE_BYTES = 64 * 1024


class FirecrackerBox(CarriedBox):
    """A box that Firecracker carries. It boots, or goes on from the memory that its plan names."""

    step, failed = "firecracker", "the machine did not come up"
    remedy = "see `immure doctor`; IMMURE_KERNEL names another kernel, IMMURE_FIRECRACKER another Firecracker"
    carrier_user = OUTER_USER

    def __init__(
        self,
        spawner: Spawner,
        launch: Launch,
        *,
        drive: Callable[[Pump], Driver],
        sources: list[int] | None = None,
        adopts: Adopts | None = None,
    ) -> None:
        """`adopts` is for a machine that had its configuration before."""
        self._console = -1
        boots = CONFIG in launch.carrier
        within_s = BOOT_S if boots else RESTORE_S
        first_word = this_moment if adopts is not None else lambda: at_this_moment(launch.guest)
        super().__init__(
            spawner, launch, first_word, drive=drive, sources=sources, start_s=within_s, adopts=adopts
        )
        carrier = self._carrier
        self._reach = Reach(self.outer, launch, lambda: _has_ended(carrier))
        arrive = _Arrival(self._reach, self._bridge.pump, time.monotonic() + within_s, boots=boots)
        threading.Thread(target=arrive, name="immure-machine", daemon=True).start()

    def _start_carrier(self, launch: Launch) -> tuple[int, int]:
        """Has it started, with a console that holds so much and no more. The channel is made later."""
        self._console = _bounded_memory("immure-console", _CONSOLE_BYTES)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._said, says = os.pipe2(os.O_CLOEXEC)
        try:
            request = carrier_request(launch, launch.carrier, self.carrier_user)
            self._carrier = self._asked_of_outer(request, (nothing, self._console, says))
        finally:
            os.close(says)
            os.close(nothing)
        os.set_blocking(self._said, False)
        return -1, -1

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
        """What Firecracker, the kernel and our init have said."""
        return reason_on(self.console().decode(errors="replace")) or super().said()

    def console(self) -> bytes:
        """The beginning of all that was said on the machine's console, 64 KiB at most."""
        if self._console < 0:
            return b""
        return os.pread(self._console, _CONSOLE_BYTES, 0).rstrip(b"\0")

    def _close_own(self) -> None:
        super()._close_own()
        if self._console >= 0:
            os.close(self._console)
            self._console = -1


class _Arrival:
    """Waits for the guest of a machine, and joins its channel. It holds nothing of the box that it is made for."""

    def __init__(self, reach: Reach, pump: Pump, until: float, *, boots: bool) -> None:
        self._reach, self._pump, self._until = reach, pump, until
        self._boots = boots

    def __call__(self) -> None:
        try:
            if not self._boots:
                self._go_on()
            self._pump.join(*two_of(self._reach.guest(self._until)))
        except BoxError as error:
            with self._pump.lock:
                self._pump.end(error)

    def _go_on(self) -> None:
        memory = models.MemoryBackend(backend_type="File", backend_path=MEMORY)
        snapshot = models.SnapshotLoad(snapshot_path=STATE, mem_backend=memory, resume_vm=True)
        client = self._reach.client(self._until)
        try:
            client.load_snapshot(snapshot)
        except VmmRefused as error:
            raise SetupFailed(
                "the machine can't go on from the memory of another",
                step="restore",
                need="one of this host, and of this version of Firecracker",
                have=error.have,
            ) from error
        finally:
            client.close()


def _has_ended(command: Socket) -> bool:
    """Whether something was said of it, which is its end, or nobody listens any more."""
    fd = command.fileno()
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


def _bounded_memory(name: str, size: int) -> int:
    """A file in memory that is so long, and can't be made longer or shorter."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd
