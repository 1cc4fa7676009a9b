"""Standard descriptors of a command whose output its caller gets."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from immure.errors import SpecError
from immure.runtimes.base import Commands
from immure.runtimes.process.attend import Stdio
from immure.runtimes.process.course import Sink
from immure.runtimes.process.pipes import make_pipes
from immure.runtimes.process.spawner import memory_file

#: For standard input that is written while the command runs; subprocess.PIPE is the same.
PIPE = -1
#: What most terminals understand.
DEFAULT_TERM = b"xterm-256color"

_MOST = 0xFFFF
#: Linux 5.1. F_SEAL_WRITE would wait, for milliseconds, until no page is in use.
_F_SEAL_FUTURE_WRITE = 0x10
_SEALS = _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def captured(stdin: bytes | None) -> Stdio:
    """Output into pipes, which it owns; input from a sealed file in memory, or nothing."""
    pipes = out, their_out, err, their_err = make_pipes()
    try:
        first = _input(stdin) if stdin else None
    except BaseException:
        for fd in pipes:
            os.close(fd)
        raise
    given = [their_out, their_err] if first is None else [their_out, their_err, first]
    return Stdio((first, their_out, their_err), given, [Sink(out, None), Sink(err, None)], [out, err])


def streamed(stdin: bytes | int | None) -> tuple[Stdio, int | None]:
    """Output into pipes that are read while the command runs, and with PIPE the descriptor to write its input to."""
    if not isinstance(stdin, int):
        return captured(stdin), None
    if stdin != PIPE:
        raise SpecError("standard input is bytes or PIPE", path="stdin", need="immure.PIPE", have=str(stdin))
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        outputs = captured(None)
    except BaseException:
        os.close(reader)
        os.close(writer)
        raise
    stdio = Stdio((reader, *outputs.theirs[1:]), [*outputs.close, reader], outputs.sinks)
    stdio.owned.append(writer)
    return stdio, writer


def with_input(fd: int) -> Stdio:
    """Output into pipes, and input from a regular file that is opened for reading alone. It stays the caller's."""
    outputs = captured(None)
    return Stdio((fd, *outputs.theirs[1:]), outputs.close, outputs.sinks)


def open_terminal(box: Commands, size: tuple[int, int] | bool) -> tuple[Stdio, int]:
    """A new terminal for all three streams, and a descriptor for what is typed."""
    columns, rows = size if isinstance(size, tuple) else (80, 24)
    ours, theirs = box.open_terminal()
    try:
        set_window_size(ours, columns, rows)
        typed = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 3)
    except BaseException:
        os.close(ours)
        os.close(theirs)
        raise
    return terminal_of(ours, theirs, None), typed


def terminal_of(ours: int, theirs: int, target: int | None) -> Stdio:
    """A new terminal's two ends as the three streams of a command; what it shows goes to `target`, or is kept."""
    stdio = Stdio((theirs, theirs, theirs), [], [Sink(ours, target)])
    # Not ours, which is the file that all terminals are made by.
    stdio.owned, stdio.late, stdio.terminal = [theirs], [theirs], True
    return stdio


def set_window_size(fd: int, columns: int, rows: int) -> None:
    """Sets a terminal's size. Raises SpecError for one that there is not. ioctl_tty(2)."""
    if not (0 < columns <= _MOST and 0 < rows <= _MOST):
        raise SpecError(
            "no such size of a terminal", path="pty", need=f"1 to {_MOST} columns and rows", have=f"{columns}, {rows}"
        )
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _input(stdin: bytes) -> int:
    # Opened anew for reading: the box is to have no descriptor that it could write to.
    fd = memory_file(stdin, sealable=True)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
