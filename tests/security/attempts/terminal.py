"""Typing into a terminal: what is pushed into its input runs in the caller's shell once the box is gone."""

from __future__ import annotations

import fcntl
import os
import termios

from security.attempt import attempt
from security.reach import reaches_kernel

_TIOCLINUX = 0x541C
_REQUEST = 1
_REFUSED = "EPERM EACCES ENOTTY EIO"


def _adopt(terminal: int) -> None:
    """Make it the controlling terminal of a session of our own."""
    if os.fork():
        os.wait()
        os._exit(0)
    os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


@attempt(_REFUSED, needs_root=True)
def type_into_own() -> str:
    """A terminal that the program made itself shows whether the request is open at all."""
    _, terminal = os.openpty()
    _adopt(terminal)
    fcntl.ioctl(terminal, termios.TIOCSTI, b"x")
    return "typed"


@attempt(_REFUSED, scenes="stdin_terminal", needs_root=True)
def type_into_stdin() -> str:
    """The caller's terminal on stdin."""
    if os.isatty(0):
        _adopt(0)
    fcntl.ioctl(0, termios.TIOCSTI, b"x")
    return "typed"


@attempt(
    _REFUSED,
    cases={
        "TIOCSTI": {"request": termios.TIOCSTI},
        "TIOCLINUX": {"request": _TIOCLINUX},
    },
)
def reach(request: int) -> str:
    """Get the request past every filter, whatever terminal it is for."""
    reaches_kernel("ioctl", 0, request, 0, only=(_REQUEST, request))
    return "would be carried out"


@attempt(_REFUSED, cases={"TIOCSTI": {"request": termios.TIOCSTI}, "TIOCLINUX": {"request": _TIOCLINUX}})
def reach_with_wide_request(request: int) -> str:
    """The kernel takes 32 bits of the request; a filter that compares 64 can be fooled."""
    reaches_kernel("ioctl", 0, 0x5A5A_0000_0000_0000 | request, 0, only=(_REQUEST, request))
    return "would be carried out"
