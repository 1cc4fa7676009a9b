"""One command between its asker, with messages and descriptors, and a channel."""

from __future__ import annotations

import _socket
from collections.abc import Callable

from immure.channel import frames as channel
from immure.channel.pump import GONE, IN, Pump
from immure.runtimes.guest.streams import Source, Target
from immure.runtimes.process import frames
from immure.runtimes.process.spawner import Socket

#: An asker's message: its terminal has another size. `u32 columns, rows`.
RESIZE = 15
_SIGKILL, _MOST_SIGNAL = 9, 64
_MESSAGE_BYTES = 64


class Relay:
    """Passes on what a guest says of one command, and what its asker wants of it, until neither needs it any more."""

    def __init__(
        self, pump: Pump, asker: Socket, stream: int, targets: list[Target], done: Callable[[int], None]
    ) -> None:
        self._pump, self._asker, self._stream = pump, asker, stream
        self._targets = dict(zip((1, 2), targets, strict=False))
        self.source: Source | None = None
        self._exit: bytes | None = None
        #: The asker has sent it a signal. Where it dies of one, what nobody reads is not waited for: it might as well
        #: have died before it was written.
        self._signalled = False
        self._told = False
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
                self._exit = exit_message(event)
                if not (self._signalled and _died_of_signal(event.status)):
                    for target in self._targets.values():
                        target.owed = target.pending_bytes()
            case _:
                return
        self.settle()

    def settle(self) -> None:
        """Tells the exit once all that came before it has been written, and ends what is over."""
        if self._exit is not None and not any(target.owed for target in self._targets.values()):
            self._tell(self._exit)
            self._exit = None
            self._told = True
            self._close_source()
            self._close_asker()
        if self._told and not any(target.is_open for target in self._targets.values()):
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
                self._signalled = True
        elif kind == RESIZE and len(message) >= 16:
            self._pump.host.resize(self._stream, frames.u32(message, 8), frames.u32(message, 12))
        elif not message or event & GONE:
            self._abandon()

    def _abandon(self) -> None:
        """Nobody waits for the command any more."""
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


def _died_of_signal(status: int) -> bool:
    return status & 0x7F not in (0, 0x7F)


def exit_message(event: channel.Exited) -> bytes:
    """An exit as the process runtime's stem tells it."""
    return b"".join(
        (
            frames.header(frames.EXITED),
            event.status.to_bytes(4, "little", signed=True),
            event.errno.to_bytes(4, "little"),
            event.step.to_bytes(4, "little"),
            event.cpu_us.to_bytes(8, "little"),
            event.memory_peak_kib.to_bytes(8, "little"),
        )
    )
