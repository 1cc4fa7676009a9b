"""Machines that are begun, copied, and begun from a copy.

A copy is made while QEMU stands still: the state of its devices goes to a file, and so does the machine's memory,
unless it is a file already, which is copied then. A machine that goes on from a sealed file shares it with all others
that do, and has what it writes for itself. Source: docs/devel/migration.rst of QEMU 7.2.
"""

from __future__ import annotations

import os
import time

from immure.errors import SetupFailed
from immure.plan.launch import Launch
from immure.plan.machine import memory_bytes
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.qemu.memory import make_memory, sealed_copy
from immure.runtimes.qemu.monitor import PATIENCE_S
from immure.runtimes.qemu.vmm import Start, Vmm, migration

#: How long a state may take that has all of a machine's memory in it.
COPY_S = 120.0
_STATE = "state"
_MOMENT_S = 0.0005
#: Bytes in a second; QEMU wants a number.
_BANDWIDTH = 1 << 40


def begin_machine(start: Start, launch: Launch) -> Vmm:
    """A new one. Raises BoxLost."""
    memory = make_memory(memory_bytes(launch.carrier))
    try:
        return Vmm(start, launch, memory=memory)
    finally:
        os.close(memory)


def wake_machine(start: Start, launch: Launch, copy: MachineCopy) -> Vmm:
    """One that goes on from a copy. Raises BoxLost."""
    # With a place in it of its own: others may read the same.
    state = os.open(f"/proc/self/fd/{copy.state}", os.O_RDONLY | os.O_CLOEXEC)
    memory = make_memory(memory_bytes(launch.carrier)) if copy.memory is None else os.dup(copy.memory)
    try:
        return Vmm(start, launch, memory=memory, shared=copy.memory is None, incoming=state)
    finally:
        os.close(state)
        os.close(memory)


def copy_machine(vmm: Vmm) -> MachineCopy:
    """A copy of a machine, which goes on.

    Raises SetupFailed where QEMU can't, BoxLost, and OSError where this host has no room.
    """
    copy = MachineCopy(os.memfd_create("immure-state", os.MFD_CLOEXEC), None)
    try:
        _write_state(vmm, copy.state)
        if vmm.shared:
            copy.memory = sealed_copy(vmm.memory)
    except BaseException:
        copy.close()
        raise
    finally:
        _go_on(vmm)
    return copy


def _go_on(vmm: Vmm) -> None:
    """It takes QEMU a moment after the last byte to be ready for that."""
    until = time.monotonic() + PATIENCE_S
    while vmm.monitor.ask("query-status").get("status") == "finish-migrate" and time.monotonic() < until:
        time.sleep(_MOMENT_S)
    vmm.monitor.ask("cont")


def _write_state(vmm: Vmm, file: int) -> None:
    """Has QEMU write it, and stand still then."""
    vmm.monitor.ask("migrate-set-capabilities", migration(memory_is_sent=not vmm.shared))
    # As fast as it can: the machine may stand still meanwhile.
    vmm.monitor.ask("migrate-set-parameters", {"max-bandwidth": _BANDWIDTH})
    vmm.monitor.ask("getfd", {"fdname": _STATE}, [file])
    # That of how this machine itself came here, for one.
    vmm.monitor.forget()
    vmm.monitor.ask("migrate", {"uri": f"fd:{_STATE}"})
    while (status := vmm.monitor.wait_for("MIGRATION", COPY_S).data.get("status")) != "completed":
        if status in ("failed", "cancelled"):
            told = str(vmm.monitor.ask("query-migrate"))
            raise SetupFailed("QEMU can't make a copy of the machine", step="migrate", have=told[:1000])
