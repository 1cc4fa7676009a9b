"""Tries to be answered by our init in a guest of Firecracker's, several at once.

Source: Firecracker, docs/vsock.md: `CONNECT PORT` is answered by `OK NUMBER` where somebody in the guest listens, and
by the connection's end where nobody does.
"""

from __future__ import annotations

import re
import select
import socket
import time

from immure.channel import frames
from immure.channel.host import own_hello
from immure.channel.limits import GUEST_FRAME_BYTES
from immure.errors import ChannelError
from immure.plan.firecracker_config import PORT

_ANSWER = re.compile(rb"OK \d{1,10}\n")
_ANSWER_BYTES = 16
_READ_BYTES = 4096
_NUMBER = 1


class Try:
    """One connection, from `CONNECT` to the answer to our first ping. It owns its socket until that is taken."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._heard = bytearray()
        self._greeting = b""
        self._connected = self.answered = False
        connection.setblocking(False)
        try:
            self._say(b"CONNECT %d\n" % PORT)
        except OSError:
            # Cut by now, which is heard like any end.
            pass

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        return self._connection.fileno()

    def hear(self) -> None:
        """Takes what has come. Raises OSError where it is cut or refused, and ChannelError."""
        data = self._connection.recv(_READ_BYTES)
        if not data:
            raise ConnectionResetError
        self._heard += data
        if not self._connected:
            self._hear_answer()
        if self._connected and not self._greeting and (greeting := self._frame()):
            if not isinstance(frames.decode(greeting), frames.Hello):
                raise ChannelError("order", need="a hello first", have="something else")
            self._greeting = len(greeting).to_bytes(4, "little") + greeting
            self._say(own_hello() + frames.encode(frames.Ping(_NUMBER)))
        if self._greeting and (pong := self._frame()):
            if frames.decode(pong) != frames.Pong(_NUMBER):
                raise ChannelError("order", need="an answer to the first ping", have="something else")
            self.answered = True

    def taken(self) -> tuple[int, bytes]:
        """The connection of one that was answered, which is the caller's then, and what it has said of itself."""
        return self._connection.detach(), self._greeting + bytes(self._heard)

    def close(self) -> None:
        """Gives it up, unless it was taken."""
        self._connection.close()

    def _say(self, data: bytes) -> None:
        # So little goes at once, or never does.
        if self._connection.send(data) != len(data):
            raise BlockingIOError

    def _hear_answer(self) -> None:
        line, end, rest = self._heard.partition(b"\n")
        if end or len(line) >= _ANSWER_BYTES:
            if not _ANSWER.fullmatch(line + end):
                raise ConnectionRefusedError
            self._heard, self._connected = rest, True

    def _frame(self) -> bytes:
        """The next one, once it is whole. Raises ChannelError for one that is too long, or empty."""
        if len(self._heard) < 4:
            return b""
        length = int.from_bytes(self._heard[:4], "little")
        if not 0 < length <= GUEST_FRAME_BYTES:
            raise ChannelError("length", need=f"1 to {GUEST_FRAME_BYTES}", have=str(length))
        if len(self._heard) < 4 + length:
            return b""
        frame = bytes(self._heard[4 : 4 + length])
        del self._heard[: 4 + length]
        return frame


def first_answered(tries: list[Try], until: float) -> Try | None:
    """The first to be answered; None where none is by then. Those that are cut or refused are closed and removed.

    Raises ChannelError for one that says what our init would not.
    """
    while True:
        left_s = max(0.0, until - time.monotonic())
        poll = select.poll()
        known = {one.fileno(): one for one in tries}
        for fd in known:
            poll.register(fd, select.POLLIN)
        for fd, _ in poll.poll(left_s * 1000):
            one = known[fd]
            try:
                one.hear()
            except OSError:
                tries.remove(one)
                one.close()
                continue
            if one.answered:
                return one
        if left_s == 0:
            return None
