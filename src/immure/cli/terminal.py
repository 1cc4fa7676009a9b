"""`immure run -t`: a terminal of the command's own, joined to the caller's."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager

from immure.engine.stdio import DEFAULT_TERM, terminal_of
from immure.runtimes.base import Commands
from immure.runtimes.process.attend import Stdio
from immure.runtimes.process.request import Request

_SIZE = struct.Struct("HHHH")
_DEFAULT_SIZE = (24, 80, 0, 0)


def give_term(request: Request) -> None:
    """Tells the command what terminal it has, unless the spec does."""
    if b"TERM" not in request.env:
        request.add_env({b"TERM": os.environb.get(b"TERM") or DEFAULT_TERM})


@contextmanager
def raw_terminal() -> Generator[None]:
    """Passes every key on as it is, if standard input is a terminal, and puts that back whatever happens."""
    try:
        before = termios.tcgetattr(0)
    except termios.error:
        yield
        return
    try:
        # What was typed ahead stays.
        tty.setraw(0, termios.TCSADRAIN)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def join_terminal(box: Commands, *, interactive: bool, stdout: int = 1) -> Stdio:
    """A new terminal whose picture goes to standard output, and with `interactive` what is typed into it."""
    ours, theirs = box.open_terminal()
    typed = -1
    try:
        for fd in (ours, theirs):
            os.set_inheritable(fd, False)
        if interactive:
            typed = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 3)
        stdio = terminal_of(ours, theirs, stdout)
        stdio.resize = lambda: _copy_size(ours)
        stdio.resize()
    except BaseException:
        for fd in (ours, theirs, typed):
            if fd >= 0:
                os.close(fd)
        raise
    if interactive:
        stdio.feed = (0, typed)
    return stdio


def _copy_size(target: int) -> None:
    """Gives a terminal the size of the caller's, whichever standard descriptor that is. ioctl_tty(2)."""
    size = _SIZE.pack(*_DEFAULT_SIZE)
    for fd in (1, 0, 2):
        try:
            size = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(_SIZE.size))
            break
        except OSError:
            continue
    if _SIZE.unpack(size)[:2] == (0, 0):
        size = _SIZE.pack(*_DEFAULT_SIZE)
    try:
        fcntl.ioctl(target, termios.TIOCSWINSZ, size)
    except OSError:
        # The command has ended.
        pass
