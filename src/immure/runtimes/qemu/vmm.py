"""QEMU as it is started in an outer box: with its channel, its monitor, the machine's memory and its own disk as
descriptors."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack

from immure.errors import BoxLost
from immure.plan.launch import Launch
from immure.plan.machine import OUTER_USER
from immure.plan.qemu_arguments import waking_arguments
from immure.runtimes.guest.outer import carrier_request
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket
from immure.runtimes.qemu.monitor import Monitor

#: What QEMU calls the state that it reads or writes.
STATE = "state"

#: Has an operation of the native program started in an outer box.
Start = Callable[[Request, tuple[int, int, int]], Socket]


class Vmm:
    """A QEMU that was started. It owns its descriptors, but for what is taken.

    `asker` is where its end is told, `said` what it writes of itself, `memory` the machine's, or what that went on from
    where it is not `shared`, and `disk` its own, if it has one.
    """

    def __init__(
        self,
        start: Start,
        launch: Launch,
        *,
        memory: int,
        disk: int | None,
        shared: bool = True,
        waits: bool = False,
    ) -> None:
        """One that `waits` goes on from what `wake` gives it. `memory` and `disk` stay the caller's. Raises BoxLost."""
        self.shared = shared
        # A machine may still be coming up on a thread when its box is closed.
        self._lock = threading.Lock()
        self.channel = self.said = self.memory = -1
        self.disk: int | None = None
        arguments = waking_arguments(launch.carrier, shared=shared) if waits else launch.carrier
        request = carrier_request(launch, ("carry", *arguments), OUTER_USER)
        with ExitStack() as made:
            self.memory = os.dup(memory)
            made.callback(os.close, self.memory)
            if disk is not None:
                self.disk = os.dup(disk)
                made.callback(os.close, self.disk)
            channel, first = _pair(made)
            monitor, second = _pair(made)
            self.said, third = os.pipe2(os.O_CLOEXEC)
            made.callback(os.close, self.said)
            os.set_blocking(self.said, False)
            with os.fdopen(third, "wb"), first, second:
                socket.send_fds(monitor, [b"."], [memory] if disk is None else [memory, disk])
                self.monitor = Monitor(monitor)
                self.asker = start(request, (first.fileno(), second.fileno(), third))
            self.channel = channel.detach()
            made.pop_all()

    def wake(self, state: int, *, memory_is_sent: bool) -> None:
        """Has it go on from a state: a file, or a socket. That stays the caller's. It need not be up yet."""
        self.monitor.ask_ahead("migrate-set-capabilities", migration(memory_is_sent=memory_is_sent))
        self.monitor.ask_ahead("getfd", {"fdname": STATE}, [state])
        self.monitor.ask_ahead("migrate-incoming", {"uri": f"fd:{STATE}"})

    def take_channel(self) -> tuple[int, int]:
        """Descriptors to read from and to write to, which are the caller's then. Raises BoxLost where it is closed."""
        with self._lock:
            if self.channel < 0:
                raise BoxLost("the machine was closed", need="its channel")
            sends = os.dup(self.channel)
            receives, self.channel = self.channel, -1
        return receives, sends

    def close(self) -> None:
        """Lets go of it. It ends with the box that it is in."""
        self.asker.close()
        self.monitor.close()
        with self._lock:
            fds, self.channel, self.said, self.memory = (self.channel, self.said, self.memory, self.disk), -1, -1, -1
            self.disk = None
        for fd in fds:
            if fd is not None and fd >= 0:
                os.close(fd)


def migration(*, memory_is_sent: bool) -> dict[str, object]:
    """How a state goes from one to the other: with the memory, unless both have it. Both have to be told the same."""
    wanted = {"x-ignore-shared": not memory_is_sent, "events": True}
    return {"capabilities": [{"capability": name, "state": state} for name, state in wanted.items()]}


def _pair(made: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    made.callback(ours.close)
    made.callback(theirs.close)
    return ours, theirs
