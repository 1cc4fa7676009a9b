"""Pipes for a command's output: those of the next one are made while one runs, when nobody waits for them."""

from __future__ import annotations

import _thread
import os

#: The readers and the writers of standard output and error.
Pipes = tuple[int, int, int, int]

_ahead: list[Pipes] = []
_making = _thread.allocate_lock()
#: Higher numbers are not kept beyond the moment in which so much is open: select(2) takes none from 1,024 on.
_MOST = 512


def take_pipes() -> Pipes:
    """Two pipes that nobody has used, from now on the caller's."""
    try:
        return _ahead.pop()
    except IndexError:
        return make_pipes()


def make_ahead() -> None:
    """Makes those that are taken next, unless they are there, or another thread does."""
    if _ahead or not _making.acquire(blocking=False):
        return
    try:
        pipes = make_pipes()
        if max(pipes) < _MOST:
            _ahead.append(pipes)
        else:
            _close(pipes)
    except OSError:
        # Whoever needs them will say so.
        pass
    finally:
        _making.release()


def make_pipes() -> Pipes:
    """Two new ones."""
    out = os.pipe2(os.O_CLOEXEC)
    try:
        return (*out, *os.pipe2(os.O_CLOEXEC))
    except BaseException:
        _close(out)
        raise


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def _forget() -> None:
    """In a forked child: they are its parent's, whose commands' output is not at its end while others hold them."""
    global _making
    # It may be held by a thread that the child does not have.
    _making = _thread.allocate_lock()
    while _ahead:
        _close(_ahead.pop())


os.register_at_fork(after_in_child=_forget)
