"""Deadlines of commands, which most of them do not live to see."""

from __future__ import annotations

import threading
from time import monotonic

from immure.engine import deadlines


class Command:
    def __init__(self) -> None:
        self.called = threading.Event()

    def due(self) -> float | None:
        self.called.set()
        return None


def test_it_is_called_when_the_time_has_come() -> None:
    command = Command()
    deadlines.watch(monotonic() + 0.05, command.due)
    assert command.called.wait(10)


def test_those_of_commands_that_have_ended_are_forgotten() -> None:
    living = [Command() for _ in range(100)]
    for command in living:
        deadlines.watch(monotonic() + 3600, command.due)
    for _ in range(20_000):
        deadlines.watch(monotonic() + 3600, Command().due)
    assert len(deadlines._heap) < 2_000
    kept = {id(one[2]().__self__) for one in deadlines._heap if one[2]() is not None}  # type: ignore[union-attr]
    assert {id(one) for one in living} <= kept
