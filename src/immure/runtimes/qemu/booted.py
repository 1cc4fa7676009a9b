"""A machine that has booted, whose init waits for its host: boxes go on from a copy of its memory in place of booting.

It has said its hello and heard none, so that a copy of it is as new as any: whoever has the copy says hello, and knows
what it has said.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from immure.channel.host import hello_of_guest
from immure.channel.pump import Pump
from immure.errors import BoxError, BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.guest.machine_copy import MEMORY_FILE, STATE_FILE
from immure.runtimes.guest.memory import copy_parts
from immure.runtimes.process.box import Box
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, Spawner
from immure.runtimes.qemu.copies import begin_machine, copy_machine, empty_copy
from immure.runtimes.qemu.saying import not_up, said_by
from immure.runtimes.qemu.vmm import Vmm


def boot_for_others(spawner: Spawner, launch: Launch, above: Path, *, start_s: float = 60.0) -> None:
    """Boots a machine in an outer box and writes it below a private folder; nothing has run in it but our init.

    Raises SetupFailed and BoxLost.
    """
    outer = Box(spawner, launch, one_shot=False)
    try:

        def start(request: Request, stdio: tuple[int, int, int]) -> Socket:
            return outer.start(request.payload(), stdio, builtin=True)

        vmm = begin_machine(start, launch)
        try:
            outer.ready()
            outer.release()
            _hear_hello(vmm, time.monotonic() + start_s)
            _write(vmm, launch, above)
        except BoxLost as error:
            outer.check_spawner()
            raise not_up(error, said_by(vmm.said, outer, launch)) from error
        finally:
            vmm.close()
    finally:
        outer.close()


class Arrival:
    """Has a machine go on from what `boot_for_others` wrote, while its QEMU comes up, and joins its channel.

    It holds nothing of the box that it is made for.
    """

    def __init__(self, vmm: Vmm, pump: Pump, booted: tuple[str, ...]) -> None:
        """Raises OSError where this process has no more descriptors."""
        self._vmm, self._pump = vmm, pump
        self._files = booted
        # A number that nobody else gets while it is written to.
        self._memory = os.dup(vmm.memory)

    def __call__(self) -> None:
        """Does it, on a thread. What goes wrong ends the channel."""
        try:
            self._go_on()
            self._pump.join(*self._vmm.take_channel(), hello_of_guest())
        except BoxError as error:
            self._end(error)
        except OSError as error:
            self._end(_unusable(error, self._files[0]))
        finally:
            os.close(self._memory)

    def _go_on(self) -> None:
        memory, state = self._files
        with Path(memory).open("rb", buffering=0) as file:
            copy_parts(file.fileno(), self._memory)
        with Path(state).open("rb", buffering=0) as file:
            self._vmm.wake(file.fileno(), memory_is_sent=False)

    def _end(self, error: BoxError) -> None:
        with self._pump.lock:
            self._pump.end(error)


def _unusable(error: OSError, path: str) -> SetupFailed:
    return SetupFailed(
        "the machine can't go on from one that had booted",
        step="restore",
        errno=error.errno or 0,
        have=f"{error.filename or path}: {os.strerror(error.errno or 0)}",
        hint="try once more: another one is booted then",
    )


def _hear_hello(vmm: Vmm, until: float) -> None:
    wanted = hello_of_guest()
    stream = socket.socket(fileno=os.dup(vmm.channel))
    with stream:
        heard = b""
        while len(heard) < len(wanted):
            stream.settimeout(max(0.001, until - time.monotonic()))
            try:
                data = stream.recv(len(wanted) - len(heard))
            except TimeoutError as error:
                raise BoxLost("the box does not answer", need="a hello in time") from error
            if not data:
                raise BoxLost("the box has ended", need="a hello", have="its channel was closed")
            heard += data
        if heard != wanted:
            raise BoxLost("the box broke the protocol of its channel", need="a hello of this version's init")


def _write(vmm: Vmm, launch: Launch, above: Path) -> None:
    # A copy of it has a disk of its own, on which is the same: nothing.
    copy = empty_copy(vmm, launch, with_disk=False)
    try:
        copy_machine(vmm, copy)
        for name, source in ((STATE_FILE, copy.state), (MEMORY_FILE, copy.memory)):
            assert source is not None
            with (above / name).open("xb", buffering=0) as file:
                copy_parts(source, file.fileno())
                os.ftruncate(file.fileno(), os.fstat(source).st_size)
    finally:
        copy.close()
