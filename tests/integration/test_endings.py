"""However a process ends: its boxes and all that runs in them are gone, by pidfd."""

from __future__ import annotations

import os
import select
import time

import pytest

from .endings import ENDINGS, end

pytestmark = pytest.mark.rootless

PATIENCE_S = 10


@pytest.mark.parametrize("name", ENDINGS)
def test_nothing_outlives_it(name: str) -> None:
    ended = end(name)
    try:
        # A spawner, two boxes, and three commands.
        assert len(ended.left) == 6, "the control: there was something to end"
        poll = select.poll()
        waiting = set(ended.left)
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        until = time.monotonic() + PATIENCE_S
        while waiting and time.monotonic() < until:
            for fd, _ in poll.poll(1000):
                poll.unregister(fd)
                waiting.discard(fd)
        assert not waiting
    finally:
        for fd in ended.left:
            os.close(fd)
