"""One command between its asker, with messages and descriptors, and a channel."""

from __future__ import annotations

import _socket
from collections.abc import Callable

from immure.channel import frames as channel
from immure.channel.pump import GONE, IN, Pump
from immure.errors import BoxLost
from immure.runtimes.guest.streams import Source, Target
from immure.runtimes.process import frames
from immure.runtimes.process.spawner import Socket, send

#: An asker's message: its terminal has another size. `u32 columns, rows`.
RESIZE = 16
_SIGKILL, _MOST_SIGNAL = 9, 64
_MESSAGE_BYTES = 64


def tell_size(asker: Socket, columns: int, rows: int) -> None:
    """Says on an asker's socket that its terminal has another size. One whose command has ended does not hear it."""
    try:
        send(asker, frames.header(RESIZE) + columns.to_bytes(4, "little") + rows.to_bytes(4, "little"), [])
    except BoxLost:
        pass


class Relay:
    """Passes on what a guest says of one command, and what its asker wants of it, until neither needs it any more."""

    def __init__(
        self, pump: Pump, asker: Socket, stream: int, targets: list[Target], done: Callable[[int], None]
    ) -> None:
        self._pump, self._asker, self._stream = pump, asker, stream
        self._targets = dict(enumerate(targets, 1))
        self.source: Source | None = None
        #: As it was asked for.
        self.command = b""
        self.exited = False
        #: Outputs of which the asker is to be told when all is there that was written before the exit.
        self._draining: set[int] = set()
        self._done = done
        for target in targets:
            target.moved = self.settle
        asker.setblocking(False)
        pump.watch(asker.fileno(), IN, self._hear_asker)

    def hear(self, event: channel.FromGuest) -> None:
        """Takes what the guest says of it."""
        match event:
            case channel.OutputData(_, output, data):
                self._targets[output].put(data)
            case channel.OutputDrained(_, output):
                self._targets[output].drain()
            case channel.OutputEnd(_, output):
                self._targets[output].end()
                if len(self._targets) == 1:
                    # A terminal is at its end for its reader once nobody has the other end of it.
                    self._close_source()
            case channel.InputCredit():
                if self.source is not None:
                    self.source.go_on()
            case channel.InputClosed():
                self._close_source()
            case channel.Started():
                self._tell(frames.header(frames.STARTED))
            case channel.Exited():
                self._exit(event)
            case _:
                return
        self.settle()

    def _exit(self, event: channel.Exited) -> None:
        self.exited = True
        self._close_source()
        for output, target in self._targets.items():
            if not event.draining & output:
                target.drain()
        if not all(target.is_drained for target in self._targets.values()):
            # Of each of them, at once of those that are.
            self._draining = set(self._targets)
        self._tell(exit_message(event, draining=bool(self._draining)))

    def settle(self) -> None:
        """Tells what has been passed on by now, and ends what is over."""
        if not self.exited:
            return
        for output in [one for one in self._draining if self._targets[one].is_drained]:
            self._draining.discard(output)
            # The streams of an asker are numbered from 0 on.
            self._tell(frames.header(frames.DRAINED) + (output - 1).to_bytes(4, "little"))
        if not self._draining:
            self._close_asker()
        if not any(target.is_open for target in self._targets.values()):
            self._done(self._stream)

    def _hear_asker(self, event: int) -> None:
        try:
            message = self._asker.recv(_MESSAGE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        kind = frames.kind_of(message) if len(message) >= 12 else 0
        if kind == frames.SIGNAL:
            number = frames.u32(message, 8)
            if number <= _MOST_SIGNAL:
                group = bool(int.from_bytes(message[2:4], "little") & frames.GROUP)
                self._pump.host.signal(self._stream, number, group=group)
        elif kind == RESIZE and len(message) >= 16:
            self._pump.host.resize(self._stream, frames.u32(message, 8), frames.u32(message, 12))
        elif not message or event & GONE:
            self._abandon()

    def _abandon(self) -> None:
        """Nobody waits for the command any more. What it has written may still have a reader once it has ended."""
        self._close_asker()
        if self.exited:
            return
        self._pump.host.signal(self._stream, _SIGKILL, group=True)
        for output in self._targets:
            self._pump.host.close_output(self._stream, 1 if output == 1 else 2)
        self.close()
        self._done(self._stream)

    def _tell(self, message: bytes) -> None:
        try:
            self._asker.send(message, _socket.MSG_NOSIGNAL)
        except OSError:
            # It does not want to know.
            pass

    def _close_source(self) -> None:
        if self.source is not None:
            self.source.close()

    def _close_asker(self) -> None:
        if self._asker.fileno() >= 0:
            self._pump.unwatch(self._asker.fileno())
            self._asker.close()

    def close(self) -> None:
        """Lets go of everything: the asker and the readers learn it by that."""
        self._close_source()
        for target in self._targets.values():
            target.close()
        self._close_asker()


def exit_message(event: channel.Exited, *, draining: bool) -> bytes:
    """An exit as the process runtime's stem tells it."""
    return b"".join(
        (
            frames.header(frames.EXITED, frames.DRAINING if draining else 0),
            event.status.to_bytes(4, "little", signed=True),
            event.errno.to_bytes(4, "little"),
            event.step.to_bytes(4, "little"),
            event.cpu_us.to_bytes(8, "little"),
            event.memory_peak_kib.to_bytes(8, "little"),
        )
    )
