"""A command that was under way in a guest before this host had it: new ends for its streams."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from immure.channel import frames as channel
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.terminals import make_raw
from immure.runtimes.process.attend import Stdio
from immure.runtimes.process.course import Sink
from immure.runtimes.process.spawner import pair


class Adopts:
    """What is known of a guest that somebody else had: its newest stream, and the commands under way by theirs; where
    it is a machine's, that.
    """

    def __init__(self, last_stream: int, commands: dict[int, bytes], machine: MachineCopy | None = None) -> None:
        self._last_stream, self._commands = last_stream, commands
        self.machine = machine

    def settle(self) -> None:
        """Waits until all of it is known. Raises what that has come to."""

    def close(self) -> None:
        """Lets go of what a machine goes on from."""
        if self.machine is not None:
            self.machine.close()

    @property
    def last_stream(self) -> int:
        """The newest one of who had it."""
        self.settle()
        return self._last_stream

    @property
    def commands(self) -> dict[int, bytes]:
        """Those under way, as they were asked for."""
        self.settle()
        return self._commands


class AdoptsSoon(Adopts):
    """The same of a machine that is being copied: what is to take it up can begin meanwhile."""

    def __init__(self, machine: MachineCopy, make: Callable[[], Adopts]) -> None:
        """`make` fills the machine's copy in."""
        super().__init__(0, {}, machine)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(make,), daemon=True)
        self._thread.start()

    def _run(self, make: Callable[[], Adopts]) -> None:
        try:
            made = make()
            self._last_stream, self._commands = made.last_stream, made.commands
        except BaseException as error:
            self._failure = error

    def settle(self) -> None:
        """Waits until the copy is made. Raises as that has failed."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """As any, once nobody writes to it any more: its descriptors' numbers may be somebody else's then."""
        self._thread.join()
        super().close()


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
