"""A box in a virtual machine: QEMU in an outer box of the process runtime, our init its guest's first process."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from errno import EOPNOTSUPP

import msgspec

from immure.channel.pump import Pump
from immure.errors import BoxLost, ProtectionUnavailable, SetupFailed
from immure.host.tree import below
from immure.plan.launch import Launch
from immure.plan.machine import CONSOLE
from immure.plan.qemu import OUTER_USER, OUTSIDE
from immure.policy.landlock import LEAST_ABI
from immure.runtimes.guest.attested import attestation, attested, outer_opens
from immure.runtimes.guest.box import Driver
from immure.runtimes.guest.carried import CarriedBox
from immure.runtimes.guest.outer import UnderWay, carrier_request
from immure.runtimes.process.spawner import Spawner

#: An emulated kernel takes a second, and on a busy host some more.
START_S = 60.0
_ENTROPY_BYTES = 64
_STATUS_BYTES, _CONSOLE_BYTES = 4096, 16 * 1024


class QemuBox(CarriedBox):
    """A box that QEMU carries."""

    step, failed = "qemu", "the machine did not come up"
    remedy = "see `immure doctor`; IMMURE_KERNEL names another kernel, IMMURE_QEMU another QEMU"
    carrier_user = OUTER_USER

    def __init__(
        self, spawner: Spawner, launch: Launch, *, drive: Callable[[Pump], Driver], sources: list[int] | None = None
    ) -> None:
        super().__init__(spawner, launch, at_this_moment(launch.guest), drive=drive, sources=sources, start_s=START_S)

    def ready(self) -> dict[str, bytes]:
        """As any carried box's. Raises ProtectionUnavailable, too, for what its kernel must have and has not."""
        try:
            return super().ready()
        except SetupFailed as error:
            if (error.step, error.errno) != ("landlock", EOPNOTSUPP):
                raise
            raise ProtectionUnavailable(
                "files.landlock",
                need=f"Landlock ABI {LEAST_ABI} (Linux 6.2) in the machine's kernel",
                have=f"{self.launch.programs[1][0]}: {error.message}",
                hint="name a kernel that has it by IMMURE_KERNEL, or leave protections.landlock out",
            ) from error

    def seen_meanwhile(self) -> dict[str, bytes]:
        """The control of a file that is out of reach."""
        return {"inside/outer_opens": b"1" if outer_opens(self.outer, OUTSIDE, OUTER_USER) else b"0"}

    def seen(self) -> dict[str, bytes]:
        """What a command of the machine says, and what runs in the outer box."""
        with attestation(self, OUTSIDE) as attesting:
            items = _vmm(self.pid)
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
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        ours = [line for line in lines if line.startswith("immure-init:") or "Kernel panic" in line]
        return (ours or lines or [""])[0]


def at_this_moment(configuration: bytes) -> bytes:
    """The same for a machine that wakes up now: with the time, and with randomness that no other one has."""
    moment = {"time_ns": time.time_ns(), "entropy": secrets.token_bytes(_ENTROPY_BYTES)}
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(configuration), "moment": moment})


def _vmm(pid: int) -> dict[str, bytes]:
    """Items `vmm/PID/…` of what runs in the outer box, and this host's own kernel."""
    items: dict[str, bytes] = {}
    for one in below(pid):
        try:
            with open(f"/proc/{one}/status", "rb") as file:  # noqa: PTH123
                status = file.read(_STATUS_BYTES)
        except OSError:
            # It has ended meanwhile.
            continue
        items[f"vmm/{one}/status"] = status
        items[f"vmm/{one}/exe"] = _program_of(one)
        items[f"vmm/{one}/kvm"] = _kvm_of(one)
    own = os.uname()
    items["host/uname"] = f"{own.release}\0{own.version}".encode()
    return items


def _kvm_of(pid: int) -> bytes:
    """Whether a process has a machine of KVM's, by the names of what it has open. Documentation/virt/kvm/api.rst."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as found:
            names = [os.readlink(entry.path) for entry in found]  # noqa: PTH115
    except OSError as error:
        return os.strerror(error.errno or 0).encode()
    return b"a machine" if "anon_inode:kvm-vm" in names else b"nothing"


def _program_of(pid: int) -> bytes:
    try:
        return os.readlink(f"/proc/{pid}/exe").encode(errors="surrogateescape")  # noqa: PTH115
    except OSError as error:
        return os.strerror(error.errno or 0).encode()
