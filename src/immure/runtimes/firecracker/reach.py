"""What Firecracker and its guest are reached by: two sockets in the outer box.

Source: Firecracker, docs/vsock.md: `CONNECT PORT` is answered by `OK NUMBER` where somebody in the guest listens, and
by the connection's end where nobody does.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable

from immure.channel import frames
from immure.channel.host import own_hello
from immure.channel.limits import GUEST_FRAME_BYTES
from immure.errors import BoxLost, ChannelError, SetupFailed
from immure.plan.firecracker import API, VSOCK
from immure.plan.firecracker_config import PORT
from immure.plan.launch import Launch
from immure.plan.machine import OUTER_USER
from immure.runtimes.base import Commands
from immure.runtimes.firecracker.client import Client
from immure.runtimes.guest.connections import connect_within

#: One try, from the first to the last: one that falls into a restore is never answered, and a busy guest is slow.
_TRY_S, _LONGEST_TRY_S = 0.4, 8.0
#: Between two of them.
_SOON_S, _LATER_S = 0.002, 0.1
_ANSWER = re.compile(rb"OK \d{1,10}\n")
_ANSWER_BYTES = 16
_NUMBER = 1


class Reach:
    """The way to one Firecracker. `ended` says whether it has, as far as anybody knows."""

    def __init__(self, outer: Commands, launch: Launch, ended: Callable[[], bool]) -> None:
        self._outer, self._launch = outer, launch
        self._ended = ended

    def client(self, until: float) -> Client:
        """Of its API. A call waits until that is served, to the moment `until` at most."""
        return Client(lambda _: self._connected(API, until))

    def guest(self, until: float) -> tuple[int, bytes]:
        """A connection to our init in the guest, and its greeting, which is answered. Raises BoxLost."""
        patience = _TRY_S
        while True:
            connection = self._connected(VSOCK, until)
            greeting = _tried(connection, min(patience, max(0.001, until - time.monotonic())))
            if greeting is not None:
                return connection.detach(), greeting
            connection.close()
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


def _tried(connection: socket.socket, patience: float) -> bytes | None:
    """The greeting of who is there, in a connection that stands; None where it is cut, or nobody speaks in time.

    A guest that wakes up cuts its connections, and not at once: one that was made meanwhile may be among them. Once it
    answers what was said after its greeting, that is over. Raises ChannelError.
    """
    until = time.monotonic() + patience
    connection.settimeout(patience)
    try:
        connection.sendall(b"CONNECT %d\n" % PORT)
        if not _ANSWER.fullmatch(_line(connection)):
            return None
        greeting = _frame(connection, until)
        connection.sendall(own_hello() + frames.encode(frames.Ping(_NUMBER)))
        if not isinstance(frames.decode(greeting), frames.Hello):
            raise ChannelError("order", need="a hello first", have="something else")
        if frames.decode(_frame(connection, until)) != frames.Pong(_NUMBER):
            raise ChannelError("order", need="an answer to the first ping", have="something else")
    except OSError:
        # Reset, at its end, or not answered in time.
        return None
    return len(greeting).to_bytes(4, "little") + greeting


def _frame(connection: socket.socket, until: float) -> bytes:
    """The next one, and not a byte more. Raises OSError, and ChannelError for one that is too long."""
    length = int.from_bytes(_exactly(connection, 4, until), "little")
    if not 0 < length <= GUEST_FRAME_BYTES:
        raise ChannelError("length", need=f"1 to {GUEST_FRAME_BYTES}", have=str(length))
    return _exactly(connection, length, until)


def _exactly(connection: socket.socket, count: int, until: float) -> bytes:
    data = b""
    while len(data) < count:
        connection.settimeout(max(0.001, until - time.monotonic()))
        more = connection.recv(count - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data


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
