"""A terminal of this host between a caller and the terminal that a command has in its box."""

from __future__ import annotations

import fcntl
import struct
import termios


def make_raw(fd: int) -> tuple[int, int]:
    """Has a terminal pass everything on as it is: the command has one of its own. Gives its columns and rows."""
    mode = termios.tcgetattr(fd)
    mode[0] = 0
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return columns, rows
