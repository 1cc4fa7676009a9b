"""What a keeper and its clients say to each other: one message each way, between processes of one user.

A message begins with the version of both sides' form, and goes on as marshal writes values of plain types; one that is
long is in a file in memory. Standard library only, and little of that: `immure exec` goes through here.
"""

from __future__ import annotations

import _socket
import marshal
import os

from immure import __version__, errors
from immure.errors import BoxError, ImmureError
from immure.plan.launch import FORM
from immure.runtimes.process.spawner import Socket, memory_file, rights_of, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from typing import Any

#: Of the messages below; a launch has a form of its own.
_WIRE = 2
GREETING = f"immure-keeper {__version__} {FORM}.{_WIRE}\n".encode()

_INLINE, _IN_FILE = b"i", b"f"
_INLINE_BYTES = 32 * 1024
_MESSAGE_BYTES = _INLINE_BYTES + 256
#: What a message can bring. SCM_MAX_FD of unix(7).
MOST_FDS = 253


class OtherVersion(Exception):
    """The other side speaks another form. `have` is what it said first."""

    def __init__(self, have: bytes) -> None:
        super().__init__()
        self.have = have.partition(b"\n")[0][:80].decode(errors="replace")


def send_value(socket: Socket, value: Any, fds: list[int] | None = None) -> None:
    """One message. Raises BoxLost where nobody is there any more."""
    data = marshal.dumps(value, 2)
    if len(data) <= _INLINE_BYTES:
        send(socket, GREETING + _INLINE + data, fds or [])
        return
    file = memory_file(data)
    try:
        send(socket, GREETING + _IN_FILE, [file, *(fds or [])])
    finally:
        os.close(file)


def receive_value(socket: Socket) -> tuple[Any, list[int]] | None:
    """One message with its descriptors; None at the end. Raises OtherVersion, and ValueError for nonsense."""
    try:
        data, ancillary, _, _ = socket.recvmsg(
            _MESSAGE_BYTES, _socket.CMSG_SPACE(4 * MOST_FDS), _socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None
    fds = rights_of(ancillary)
    if not data:
        return None
    try:
        if not data.startswith(GREETING):
            raise OtherVersion(data)
        rest = data[len(GREETING) :]
        if rest[:1] == _IN_FILE:
            file = fds.pop(0)
            try:
                return marshal.loads(_read(file)), fds
            finally:
                os.close(file)
        return marshal.loads(rest[1:]), fds
    except BaseException as error:
        close_all(fds)
        if isinstance(error, EOFError | TypeError | IndexError):
            raise ValueError("a message that can't be read") from error
        raise


def _read(file: int) -> bytes:
    size, found = os.fstat(file).st_size, b""
    while len(found) < size:
        part = os.pread(file, size - len(found), len(found))
        if not part:
            break
        found += part
    return found


def close_all(fds: list[int]) -> None:
    """Closes descriptors that came with a message."""
    while fds:
        os.close(fds.pop())


def error_to_value(error: ImmureError) -> tuple[str, dict[str, Any]]:
    """An error, for the other side to raise."""
    return type(error).__name__, dict(vars(error))


def error_of(value: tuple[str, dict[str, Any]]) -> ImmureError:
    """The inverse."""
    name, fields = value
    kind = getattr(errors, name, BoxError)
    error = kind.__new__(kind, fields.get("message", ""))
    vars(error).update(fields)
    return error
