"""What Firecracker and its guest are reached by: two sockets in the outer box."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from immure.errors import BoxLost, SetupFailed
from immure.plan.firecracker import API, VSOCK
from immure.plan.launch import Launch
from immure.plan.machine import OUTER_USER
from immure.runtimes.base import Commands
from immure.runtimes.firecracker.client import Client
from immure.runtimes.firecracker.tries import Try, first_answered
from immure.runtimes.guest.connections import connect_within

#: Between two looks whether somebody listens.
_SOON_S, _LATER_S = 0.002, 0.1
#: Between two tries to be answered by the guest: it may be slow, or not be up yet.
_NEXT_S, _LATEST_S = 0.04, 0.4
_MOST_TRIES = 6


class Reach:
    """The way to one Firecracker. `ended` says whether it has, as far as anybody knows."""

    def __init__(self, outer: Commands, launch: Launch, ended: Callable[[], bool]) -> None:
        self._outer, self._launch = outer, launch
        self._ended = ended

    def client(self, until: float) -> Client:
        """Of its API. A call waits until that is served, to the moment `until` at most."""
        return Client(lambda _: self._connected(API, until))

    def guest(self, until: float) -> tuple[int, bytes]:
        """A connection to our init in the guest, and its greeting, which is answered. Raises BoxLost.

        A guest that wakes up cuts its connections, and not at once, and whom it has cut is never told. So there is
        another try beside those before, and the first to be answered is taken.
        """
        tries: list[Try] = []
        pause = _NEXT_S
        try:
            while True:
                tries.append(Try(self._connected(VSOCK, until)))
                if len(tries) > _MOST_TRIES:
                    tries.pop(0).close()
                answered = first_answered(tries, time.monotonic() + pause)
                if answered is not None:
                    tries.remove(answered)
                    return answered.taken()
                pause = min(pause * 1.5, _LATEST_S)
                self._check(until)
        finally:
            for one in tries:
                one.close()

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
        self._check(until)
        time.sleep(pause)

    def _check(self, until: float) -> None:
        if self._ended():
            raise BoxLost("the machine has ended", need="a machine that runs", have="Firecracker has ended")
        if time.monotonic() > until:
            raise BoxLost("the machine does not answer", need="an init that greets", have="none in time")


def two_of(connection: int) -> tuple[int, int]:
    """A descriptor to read from and one to write to, of a connection that is given up by them."""
    try:
        return connection, os.dup(connection)
    except OSError:
        os.close(connection)
        raise
