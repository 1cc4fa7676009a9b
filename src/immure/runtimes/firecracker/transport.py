"""HTTP over a socket that is connected already, within a time and a size: what comes from a VMM is not trusted.

Imported when something is first asked: `http.client` takes its time.
"""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Callable
from socket import socket as Socket
from typing import TYPE_CHECKING

from immure.errors import BoxLost

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

#: Gives a connected stream socket, within so many seconds. Raises OSError.
Connect = Callable[[float], Socket]


class Wire:
    """One connection that is kept between calls."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._connection: _Connection | None = None

    def ask(self, method: str, path: str, body: bytes | None, *, within_s: float, most: int) -> tuple[int, bytes]:
        """The status and the body of the answer. Raises BoxLost, and the connection is given up."""
        call = f"{method} {path}"
        deadline = time.monotonic() + within_s
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection = self._opened(deadline)
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = _bounded(answer, call, most)
            if answer.will_close:
                self.close()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise _lost(call, error, within_s) from error
        except BaseException:
            # What is still to come would be taken for the answer to the next call.
            self.close()
            raise
        return answer.status, content

    def close(self) -> None:
        """Ends the connection; the next call makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            connection.timed.end()

    def _opened(self, deadline: float) -> _Connection:
        if self._connection is None:
            timed = _Timed(self._connect(max(deadline - time.monotonic(), 0.001)))
            self._connection = _Connection(timed)
        self._connection.timed.deadline = deadline
        return self._connection


def _bounded(answer: http.client.HTTPResponse, call: str, most: int) -> bytes:
    content = answer.read(most + 1)
    if len(content) > most:
        raise BoxLost(f"the answer to {call} is too long", need=f"at most {most} bytes", have="more")
    return content


def _lost(call: str, error: Exception, within_s: float) -> BoxLost:
    have = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        return BoxLost(f"no answer to {call}", need=f"one within {within_s:g} s", have="none")
    return BoxLost(f"no answer to {call}", need="a VMM that serves its API", have=have, hint="see what it said last")


class _Connection(http.client.HTTPConnection):
    def __init__(self, timed: _Timed) -> None:
        super().__init__("localhost")
        self.timed = timed

    def connect(self) -> None:
        """Takes the socket that is there."""
        self.sock = self.timed  # pyright: ignore[reportAttributeAccessIssue]  # What http.client asks of a socket.


class _Timed:
    """A socket whose every wait ends at one moment, however the other end deals its bytes out."""

    deadline = 0.0

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self.end = socket.close

    def sendall(self, content: bytes) -> None:
        self.socket_in_time().sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Reader(self))

    def close(self) -> None:
        """The answer is read to its end after http.client has closed the connection of it."""

    def socket_in_time(self) -> Socket:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._socket


class _Reader(io.RawIOBase):
    def __init__(self, timed: _Timed) -> None:
        self._timed = timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._timed.socket_in_time().recv_into(buffer)
