"""Machines that are begun, copied, and begun from a copy.

A copy is made while QEMU stands still: the state of its devices goes to a file, and so does the machine's memory,
unless it is a file already, which is copied then. A machine that goes on from a sealed file shares it with all others
that do, and has what it writes for itself. Source: docs/devel/migration.rst of QEMU 7.2.
"""

from __future__ import annotations

import os
import socket
import time

from immure.errors import SetupFailed
from immure.plan.launch import Launch
from immure.plan.qemu_arguments import memory_bytes
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.disk import closing, empty_disk, fill_disk, new_disk
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.memory import fill_and_seal, make_memory
from immure.runtimes.qemu.monitor import PATIENCE_S
from immure.runtimes.qemu.vmm import STATE, Start, Vmm, migration

#: How long a state may take that has all of a machine's memory in it.
COPY_S = 120.0
_MOMENT_S = 0.0005
#: Bytes in a second; QEMU wants a number.
_BANDWIDTH = 1 << 40


def begin_machine(start: Start, launch: Launch, *, waits: bool = False) -> Vmm:
    """A new one, or one that waits for a state with all of its memory. Raises SetupFailed and BoxLost."""
    with closing(new_disk(launch)) as disk:
        return beside(start, launch, disk=disk, waits=waits)


def beside(start: Start, launch: Launch, *, disk: int | None, waits: bool = True) -> Vmm:
    """The same with a disk that is there already, which stays the caller's."""
    with closing(make_memory(memory_bytes(launch.carrier))) as memory:
        assert memory is not None
        return Vmm(start, launch, memory=memory, disk=disk, waits=waits)


def wake_machine(start: Start, launch: Launch, adopts: Adopts, copy: MachineCopy) -> Vmm:
    """One that goes on from a copy, which may still be under way. Raises BoxLost, and as the copy has failed."""
    shared = copy.memory is None
    memory = make_memory(memory_bytes(launch.carrier)) if copy.memory is None else os.dup(copy.memory)
    with closing(memory), closing(empty_disk(launch)) as disk:
        vmm = Vmm(start, launch, memory=memory, disk=disk, shared=shared, waits=True)
    try:
        adopts.settle()
        if vmm.disk is not None:
            assert copy.disk is not None
            # It looks at its disk once it goes on.
            fill_disk(copy.disk, vmm.disk)
        # With a place in it of its own: others may read the same.
        state = os.open(f"/proc/self/fd/{copy.state}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            vmm.wake(state, memory_is_sent=shared)
        finally:
            os.close(state)
    except BaseException:
        vmm.close()
        raise
    return vmm


def empty_copy(vmm: Vmm, launch: Launch, *, with_disk: bool = True) -> MachineCopy:
    """What `copy_machine` is to fill: with what is on its disk, unless that is of no use.

    Raises SetupFailed where there is no room for that, and OSError where this process can't have so many descriptors.
    """
    copy = MachineCopy(os.memfd_create("immure-state", os.MFD_CLOEXEC), None)
    try:
        if vmm.shared:
            copy.memory = make_memory(memory_bytes(launch.carrier))
        copy.disk = empty_disk(launch) if with_disk else None
    except BaseException:
        copy.close()
        raise
    return copy


def copy_machine(vmm: Vmm, copy: MachineCopy) -> None:
    """Fills an empty copy with a machine, which goes on.

    Raises SetupFailed where QEMU can't, BoxLost, and OSError where this host has no room.
    """
    try:
        _send_state(vmm, copy.state, memory_is_sent=not vmm.shared)
        if copy.memory is not None:
            fill_and_seal(vmm.memory, copy.memory)
        if copy.disk is not None:
            assert vmm.disk is not None
            fill_disk(vmm.disk, copy.disk)
    finally:
        _go_on(vmm)


def move_machine(source: Vmm, target: Vmm) -> float:
    """Has another QEMU, which waits and has the same memory or one of its own, go on with a machine.

    Gives for how many seconds it stood still.

    Raises SetupFailed where it did not come to that, and the machine is where it was; BoxLost where nobody knows.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        target.wake(theirs.fileno(), memory_is_sent=not source.shared)
        stopped_s = _send_state(source, ours.fileno(), memory_is_sent=not source.shared)
    while (event := target.monitor.next_event(COPY_S)).event != "RESUME":
        pass
    return event.time_s - stopped_s


def _go_on(vmm: Vmm) -> None:
    """It takes QEMU a moment after the last byte to be ready for that."""
    until = time.monotonic() + PATIENCE_S
    while vmm.monitor.ask("query-status").get("status") == "finish-migrate" and time.monotonic() < until:
        time.sleep(_MOMENT_S)
    vmm.monitor.ask("cont")


def _send_state(vmm: Vmm, target: int, *, memory_is_sent: bool) -> float:
    """Has QEMU write it, and stand still then. Gives since when, in seconds since 1970."""
    monitor = vmm.monitor
    monitor.ask("migrate-set-capabilities", migration(memory_is_sent=memory_is_sent))
    # As fast as it can: the machine may stand still meanwhile.
    monitor.ask("migrate-set-parameters", {"max-bandwidth": _BANDWIDTH})
    monitor.ask("getfd", {"fdname": STATE}, [target])
    # That of how this machine itself came here, for one.
    monitor.forget()
    monitor.ask("migrate", {"uri": f"fd:{STATE}"})
    stopped_s = 0.0
    while True:
        event = monitor.next_event(COPY_S)
        status = event.data.get("status") if event.event == "MIGRATION" else None
        if event.event == "STOP":
            stopped_s = event.time_s
        elif status == "completed":
            return stopped_s
        elif status in ("failed", "cancelled"):
            told = str(monitor.ask("query-migrate"))
            raise SetupFailed("QEMU can't copy the machine", step="migrate", have=told[:1000])
