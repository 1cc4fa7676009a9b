"""Connections to sockets of an outer box, whose names mean nothing out here."""

from __future__ import annotations

import os
import socket
from contextlib import closing

from immure.errors import SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.base import Commands
from immure.runtimes.guest.outer import STEP_S, carrier_request
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.course import Sink
from immure.runtimes.process.spawner import pair, receive


def connect_within(box: Commands, launch: Launch, path: str, user: int = 0) -> socket.socket:
    """A stream to who listens at a path in the box, as one of its users is connected.

    Raises SetupFailed with an `errno` where nobody listens there, and BoxLost.
    """
    request = carrier_request(launch, ("connect", path), user)
    ours, theirs = pair()
    said, errors = os.pipe2(os.O_CLOEXEC)
    stdio = Stdio((None, theirs.fileno(), errors), [errors], [Sink(said, None)])
    with closing(ours):
        try:
            with closing(theirs):
                asker = box.start(request.payload(), stdio.theirs, builtin=True)
            stdio.given()
        except BaseException:
            stdio.done()
            raise
        attendance = Attendance(box, asker, stdio, request)
        try:
            attendance.see_through(stdio, None)
        except BaseException:
            asker.close()
            raise
        box.give_back(asker)
        ours.settimeout(STEP_S)
        _, fds = receive(ours)
    if fds:
        return socket_of(fds)
    errno, _, step = bytes(attendance.sinks[0].data).decode(errors="replace").strip().partition(" ")
    number = int(errno) if errno.isdecimal() else 0
    raise SetupFailed(
        f"nobody can be reached at {path} in the box",
        step=step[:64] or "connect",
        errno=number,
        have=os.strerror(number),
    )


def socket_of(fds: list[int]) -> socket.socket:
    """The one that came. The outer box is ours, and still what comes out of it is looked at."""
    for fd in fds[1:]:
        os.close(fd)
    try:
        return socket.socket(fileno=fds[0])
    except OSError as error:
        os.close(fds[0])
        raise SetupFailed("what came out of the box is no socket", step="connect", errno=error.errno or 0) from error
