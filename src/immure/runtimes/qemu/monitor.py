"""QEMU's monitor: commands to it, and what it says of its own accord.

What comes from a VMM is hostile: a machine may have taken it over. Source: docs/interop/qmp-spec.txt of QEMU 7.2.
"""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from immure.errors import BoxError, BoxLost, SetupFailed

#: How long one command may take.
PATIENCE_S = 20.0
_LINE_BYTES = 1 << 20
#: Of those that nobody has asked for yet.
_MOST_EVENTS = 1000
_READ_BYTES = 65536


class Timestamp(Struct, frozen=True):
    """Of the host's clock, since 1970."""

    seconds: int
    microseconds: int


class Event(Struct, frozen=True):
    """What QEMU says of its own accord."""

    event: str
    timestamp: Timestamp
    data: dict[str, Any] = {}

    @property
    def time_s(self) -> float:
        """When it came about, in seconds since 1970."""
        return self.timestamp.seconds + self.timestamp.microseconds / 1e6


class _Refusal(Struct, frozen=True):
    desc: str


class _Message(Struct, frozen=True):
    """One of: the greeting, an answer, an error, an event."""

    id: int | UnsetType = UNSET
    greeting: Any = field(name="QMP", default=UNSET)
    answer: Any = field(name="return", default=UNSET)
    error: _Refusal | UnsetType = UNSET
    event: str | UnsetType = UNSET


class Monitor:
    """One QEMU's, through a socket that it was started with. For one caller at a time."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._number = 0
        self._buffer = b""
        self._events: deque[Event] = deque()
        self._ahead: deque[tuple[int, str]] = deque()
        self.ask_ahead("qmp_capabilities")

    def close(self) -> None:
        """Lets go of it. QEMU goes on."""
        self._stream.close()

    def ask_ahead(self, command: str, arguments: dict[str, Any] | None = None, fds: Sequence[int] = ()) -> None:
        """Asks for something before QEMU is there to hear it. What it answers is looked at by the next `ask`."""
        self._ahead.append((self._send(command, arguments, fds), command))

    def ask(self, command: str, arguments: dict[str, Any] | None = None, fds: Sequence[int] = ()) -> Any:
        """Has it do something, and gives what it answers.

        Raises SetupFailed where it refuses, and BoxLost where it does not answer as it should.
        """
        until = time.monotonic() + PATIENCE_S
        self._hear_ahead(until)
        return self._answer_to(self._send(command, arguments, fds), command, until)

    def next_event(self, patience_s: float = PATIENCE_S) -> Event:
        """What it says next of its own accord. Raises as `ask`, and BoxLost where nothing comes in time."""
        until = time.monotonic() + patience_s
        self._hear_ahead(until)
        while not self._events:
            self._next("an event", until)
        return self._events.popleft()

    def _hear_ahead(self, until: float) -> None:
        while self._ahead:
            self._answer_to(*self._ahead.popleft(), until)

    def forget(self) -> None:
        """What it has said of its own accord before the last answer is of no interest any more."""
        self._events.clear()

    def _send(self, command: str, arguments: dict[str, Any] | None, fds: Sequence[int]) -> int:
        self._number += 1
        wanted = {"execute": command, "arguments": arguments or {}, "id": self._number}
        message = msgspec.json.encode(wanted) + b"\n"
        self._stream.settimeout(PATIENCE_S)
        try:
            if fds:
                socket.send_fds(self._stream, [message], list(fds))
            else:
                self._stream.sendall(message)
        except OSError as error:
            raise _lost(command, os.strerror(error.errno or 0)) from error
        return self._number

    def _answer_to(self, number: int, command: str, until: float) -> Any:
        while True:
            message = self._next(command, until)
            if message is None or message.id is UNSET:
                continue
            if message.id != number:
                raise _lost(command, f"an answer to {message.id}")
            if message.error is not UNSET:
                raise SetupFailed(f"QEMU refuses {command}", step="qemu", have=message.error.desc[:1000])
            return message.answer

    def _next(self, awaited: str, until: float) -> _Message | None:
        """The next message, None for an event, which is kept."""
        line = self._line(awaited, until)
        try:
            message = msgspec.json.decode(line, type=_Message)
            if message.event is UNSET:
                return message
            self._events.append(msgspec.json.decode(line, type=Event))
        except msgspec.DecodeError as error:
            raise _lost(awaited, str(error)) from error
        if len(self._events) > _MOST_EVENTS:
            raise _lost(awaited, f"more than {_MOST_EVENTS} events")
        return None

    def _line(self, awaited: str, until: float) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > _LINE_BYTES:
                raise _lost(awaited, f"a line of more than {_LINE_BYTES} bytes")
            left = until - time.monotonic()
            if left <= 0:
                raise _lost(awaited, f"nothing in {PATIENCE_S:g} s")
            self._stream.settimeout(left)
            try:
                # Descriptors that it may send are not taken.
                data = self._stream.recv(_READ_BYTES)
            except TimeoutError:
                continue
            except OSError as error:
                raise _lost(awaited, os.strerror(error.errno or 0)) from error
            if not data:
                raise _lost(awaited, "its end")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def _lost(awaited: str, have: str) -> BoxError:
    return BoxLost("QEMU does not answer as it should", need=awaited, have=have[:1000], hint="make a new Sandbox")
