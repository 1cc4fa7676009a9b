"""A guest's box as other processes have commands run in it: on a socket, with what a stem understands."""

from __future__ import annotations

import os
import threading
import weakref

from immure.errors import BoxError, BoxLost
from immure.runtimes.guest.box import GuestBox
from immure.runtimes.process import frames
from immure.runtimes.process.spawner import Socket, pair, receive

_HEADER_BYTES = 8


class StemFace:
    """Answers on the other end of `socket` for a box, on a thread, until the socket is closed or the box is gone.

    Who asks is of our own user, and no box: what it asks for is checked as far as the stem itself would.
    """

    def __init__(self, box: GuestBox) -> None:
        self.socket, theirs = pair()
        answering = threading.Thread(target=_answer, args=(theirs, weakref.ref(box)), daemon=True)
        answering.start()


def _answer(asked: Socket, found: weakref.ref[GuestBox]) -> None:
    try:
        while _answer_one(asked, found):
            pass
    except BoxLost:
        # Its other end is gone.
        pass
    finally:
        asked.close()


def _answer_one(asked: Socket, found: weakref.ref[GuestBox]) -> bool:
    message, fds = receive(asked)
    box = found()
    if not message or box is None or box.left:
        return False
    try:
        _do(box, message, fds)
    except BoxError:
        # The asker's socket is closed, which says it.
        pass
    finally:
        # Those that a command has are copies.
        for fd in fds:
            os.close(fd)
    return True


def _do(box: GuestBox, message: bytes, fds: list[int]) -> None:
    kind, flags = frames.kind_of(message), int.from_bytes(message[2:4], "little")
    if kind in (frames.PAUSE, frames.RESUME):
        box.pause(kind == frames.PAUSE)
    elif kind == frames.EXEC:
        _start(box, flags, message[_HEADER_BYTES:], fds)


def _start(box: GuestBox, flags: int, payload: bytes, fds: list[int]) -> None:
    """Descriptors: the asker's socket, standard input (but with NO_INPUT), output, error, and a long payload's file."""
    has_input, in_file = not flags & frames.NO_INPUT, bool(flags & frames.IN_FILE)
    if len(fds) != 3 + has_input + in_file:
        raise BoxLost("a command was asked for with other descriptors than it needs")
    asker = Socket(fileno=fds.pop(0))
    if in_file:
        size = os.fstat(fds[-1]).st_size
        payload = os.pread(fds[-1], size, 0)
    given = (fds[0] if has_input else None, fds[has_input], fds[1 + has_input])
    box.start_for(
        asker,
        payload,
        given,
        hold=bool(flags & frames.HOLD),
        tell=bool(flags & frames.TELL),
        terminal=bool(flags & frames.TERMINAL),
        builtin=bool(flags & frames.BUILTIN),
    )
