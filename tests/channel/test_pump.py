"""What a pump waits for is known by the numbers of descriptors, which others get as soon as they are closed."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from immure.channel.host import Host
from immure.channel.pump import GONE, IN, Pump

pytestmark = pytest.mark.rootless


@pytest.fixture
def pump() -> Iterator[Pump]:
    made = Pump(Host(bytes), -1, -1, lambda _said: None, lambda _why: None)
    yield made
    made.close()


class Pair:
    """One that is watched, and its other end."""

    def __init__(self, pump: Pump) -> None:
        self.calls: list[int] = []
        ours, self.other = socket.socketpair()
        self.fd = ours.detach()
        self._pump = pump
        pump.watch(self.fd, IN, self._called)

    def _called(self, event: int) -> None:
        self.calls.append(event)

    def give_up(self) -> None:
        self._pump.unwatch(self.fd)
        os.close(self.fd)


def test_it_calls_whoever_is_ready(pump: Pump) -> None:
    one, other = Pair(pump), Pair(pump)
    one.other.close()
    pump.step()
    assert one.calls
    assert one.calls[0] & GONE
    assert not other.calls


def test_another_one_of_the_same_number_is_not_called_for_what_came_before(pump: Pump) -> None:
    first, second = Pair(pump), Pair(pump)
    anew: list[Pair] = []

    def replace(_event: int) -> None:
        if not anew:
            pump.unwatch(first.fd)
            second.give_up()
            anew.append(Pair(pump))

    pump.unwatch(first.fd)
    pump.watch(first.fd, IN, replace)
    first.other.send(b"x")
    second.other.close()
    pump.step()
    assert anew[0].fd == second.fd
    assert not second.calls
    assert not anew[0].calls


def test_nor_where_it_was_replaced_while_somebody_waited_for_the_lock(pump: Pump) -> None:
    one = Pair(pump)
    stepping = threading.Thread(target=pump.step, args=(-1,))
    with pump.lock:
        stepping.start()
        one.other.close()
        # It has been woken, or is about to be: it can't go on before the lock is let go of.
        stepping.join(0.2)
        one.give_up()
        anew = Pair(pump)
        pump.wake()
    stepping.join(10)
    assert not stepping.is_alive()
    assert anew.fd == one.fd
    assert not anew.calls
