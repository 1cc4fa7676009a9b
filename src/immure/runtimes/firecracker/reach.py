"""What Firecracker and its guest are reached by: two sockets in the outer box.

Source: Firecracker, docs/vsock.md: `CONNECT PORT` is answered by `OK NUMBER` where somebody in the guest listens, and
by the connection's end where nobody does.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Callable

from immure.errors import BoxLost, SetupFailed
from immure.plan.firecracker import API, VSOCK
from immure.plan.firecracker_config import PORT
from immure.plan.launch import Launch
from immure.plan.qemu import OUTER_USER
from immure.runtimes.base import Commands
from immure.runtimes.firecracker.client import Client
from immure.runtimes.guest.connections import connect_within

#: One try, from the first to the last: one that falls into a restore is never answered, and a busy guest is slow.
_TRY_S, _LONGEST_TRY_S = 1.0, 8.0
#: Between two of them.
_SOON_S, _LATER_S = 0.002, 0.1
_ANSWER = re.compile(rb"OK \d{1,10}\n")
_ANSWER_BYTES = 16


class Reach:
    """The way to one Firecracker. `ended` says whether it has, as far as anybody knows."""

    def __init__(self, outer: Commands, launch: Launch, ended: Callable[[], bool]) -> None:
        self._outer, self._launch = outer, launch
        self._ended = ended

    def client(self, until: float) -> Client:
        """Of its API. A call waits until that is served, to the moment `until` at most."""
        return Client(lambda _: self._connected(API, until))

    def guest(self, until: float) -> int:
        """A connection to our init in the guest, which has greeted on it: a descriptor. Raises BoxLost."""
        patience = _TRY_S
        while True:
            connection = self._connected(VSOCK, until)
            found = self._met(connection, min(patience, max(0.0, until - time.monotonic())))
            if found is not None:
                return found
            patience = min(patience * 1.5, _LONGEST_TRY_S)
            self._wait(_LATER_S, until)

    def _connected(self, path: str, until: float) -> socket.socket:
        """A connection to whoever listens at a path, once somebody does."""
        pause = _SOON_S
        while True:
            try:
                return connect_within(self._outer, self._launch, path, OUTER_USER)
            except SetupFailed:
                self._wait(pause, until)
                pause = min(2 * pause, _LATER_S)

    def _wait(self, pause: float, until: float) -> None:
        if self._ended():
            raise BoxLost("the machine has ended", need="a machine that runs", have="Firecracker has ended")
        if time.monotonic() > until:
            raise BoxLost("the machine does not answer", need="an init that greets", have="none in time")
        time.sleep(pause)

    def _met(self, connection: socket.socket, patience: float) -> int | None:
        """Its descriptor, where somebody there has begun to speak; None where nobody does in time."""
        connection.settimeout(patience)
        try:
            connection.sendall(b"CONNECT %d\n" % PORT)
            if not _ANSWER.fullmatch(_line(connection)):
                connection.close()
                return None
            # The greeting itself is for others to read.
            ready, _, _ = select.select([connection], [], [], patience)
            if ready and connection.recv(1, socket.MSG_PEEK):
                return connection.detach()
        except OSError:
            # Reset, or not answered in time.
            pass
        connection.close()
        return None


def _line(connection: socket.socket) -> bytes:
    """To its end, and not a byte more."""
    line = b""
    while len(line) < _ANSWER_BYTES and not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line


def two_of(connection: int) -> tuple[int, int]:
    """A descriptor to read from and one to write to, of a connection that is given up by them."""
    try:
        return connection, os.dup(connection)
    except OSError:
        os.close(connection)
        raise
