"""A machine that has booted, whose init waits for its host: boxes go on from its memory in place of booting."""

from __future__ import annotations

import os
import time
from pathlib import Path

from immure.errors import BoxError, BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.firecracker.box import BOOT_S, FirecrackerBox
from immure.runtimes.firecracker.monitor import Monitor
from immure.runtimes.guest.disk import closing, new_disk
from immure.runtimes.guest.machine_copy import MEMORY_FILE, STATE_FILE
from immure.runtimes.guest.memory import copy_pieces
from immure.runtimes.guest.vmm import reason_on
from immure.runtimes.process.box import Box
from immure.runtimes.process.spawner import Spawner


def boot_for_others(spawner: Spawner, launch: Launch, above: Path) -> None:
    """Boots a machine in an outer box and writes its image below a private folder; nothing has run in it but our init.

    Raises SetupFailed and BoxLost.
    """
    outer = Box(spawner, launch, one_shot=False)
    try:
        # A copy of it has a disk of its own, on which is the same: nothing.
        with closing(new_disk(launch)) as disk:
            monitor = Monitor(
                outer, launch, lambda request, stdio: outer.start(request.payload(), stdio, builtin=True), disk=disk
            )
        try:
            outer.ready()
            outer.release()
            # It greets, and hears no more. Who goes on from here has it cut this connection first, and those before.
            connection, _ = monitor.reach.guest(time.monotonic() + BOOT_S)
            try:
                _write(monitor, above)
            finally:
                os.close(connection)
        except BoxLost as error:
            outer.check_spawner()
            raise _explained(monitor, error) from error
        finally:
            monitor.command.close()
            os.close(monitor.said)
            monitor.close()
    finally:
        outer.close()


def _write(monitor: Monitor, above: Path) -> None:
    memory, state = monitor.freeze(None)
    (above / STATE_FILE).write_bytes(state)
    with (above / MEMORY_FILE).open("xb", buffering=0) as file:
        copy_pieces(memory, file.fileno())
        file.truncate(os.fstat(memory).st_size)


def _explained(monitor: Monitor, error: BoxError) -> BoxError:
    said = reason_on(monitor.console().decode(errors="replace"))
    if not said:
        return error
    return SetupFailed(FirecrackerBox.failed, step=FirecrackerBox.step, have=said, hint=FirecrackerBox.remedy)
