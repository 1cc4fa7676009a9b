"""A command that was under way in a guest before this host had it: new ends for its streams."""

from __future__ import annotations

import os
from typing import NamedTuple

from immure.channel import frames as channel
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.terminals import make_raw
from immure.runtimes.process.attend import Sink, Stdio
from immure.runtimes.process.spawner import pair


class Adopts(NamedTuple):
    """What is known of a guest that somebody else had: its newest stream, and the commands under way by theirs; where
    it is a machine's, that.
    """

    last_stream: int
    commands: dict[int, bytes]
    machine: MachineCopy | None = None


class Adopted:
    """`asker` is for whoever waits for it; `stdio` and `writer` are its streams as its starter would have them."""

    def __init__(self, standing: channel.Standing) -> None:
        self.stream = standing.stream
        self.is_terminal = bool(standing.flags & channel.TERMINAL)
        self.asker, self.theirs = pair()
        self.source = -1
        self.writer: int | None = None
        self._targets: list[int] = []
        if self.is_terminal:
            self._open_terminal()
        else:
            self._open_pipes(standing.input_room > 0)

    def _open_pipes(self, has_input: bool) -> None:
        sinks: list[Sink] = []
        for _ in range(2):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(writer, False)
            sinks.append(Sink(reader, None))
            self._targets.append(writer)
        if has_input:
            self.source, self.writer = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.source, False)
        self.stdio = Stdio((None, self._targets[0], self._targets[1]), [], sinks)

    def _open_terminal(self) -> None:
        ours, theirs = os.openpty()
        make_raw(theirs)
        self.writer = os.dup(ours)
        self._targets, self.source = [theirs], os.dup(theirs)
        for fd in (theirs, self.source):
            os.set_blocking(fd, False)
        self.stdio = Stdio((theirs, theirs, theirs), [], [Sink(ours, None)])
        self.stdio.terminal = True

    def targets(self) -> list[tuple[channel.Output, int]]:
        """Where its outputs are to be written."""
        numbers: tuple[channel.Output, ...] = (1, 2)
        return list(zip(numbers, self._targets, strict=False))

    def close(self) -> None:
        """Lets go of what nobody has taken."""
        self.asker.close()
        self.stdio.done()
        if self.writer is not None:
            os.close(self.writer)
