"""Commands of ours in the outer box, beside the Sentry."""

from __future__ import annotations

import os

from immure.plan.launch import Launch
from immure.runtimes.base import Commands
from immure.runtimes.process.attend import Attendance, Sink, Stdio
from immure.runtimes.process.request import Request

#: How long one may take, unless it is said.
STEP_S = 20.0


def carrier_request(launch: Launch, argv: tuple[str, ...]) -> Request:
    """A command of the outer box, by its id 0, with nothing of the workload's environment."""
    request = Request(launch, [one.encode() for one in argv])
    request.uid = request.gid = 0
    request.env = {b"PATH": b"/", b"HOME": b"/tmp"}
    request.workdir = "/"
    request.timeout_s = STEP_S
    return request


def attended(box: Commands, request: Request, first: int | None = None, *, builtin: bool = False) -> Attendance:
    """A command, or an operation of the native program, that has ended or has had its time.

    `first` is its standard input, which stays the caller's. The two sinks have what it wrote. Raises BoxLost.
    """
    stdio = _captured(first)
    try:
        asker = box.start(request.payload(), stdio.theirs, hold=True, builtin=builtin)
        try:
            stdio.given()
            attendance = Attendance(box, asker, stdio, request)
            attendance.see_through(stdio, None)
        except BaseException:
            # It ends the command.
            asker.close()
            raise
    finally:
        stdio.done()
    if attendance.exit is not None:
        box.give_back(asker)
    else:
        asker.close()
    return attendance


def _captured(first: int | None) -> Stdio:
    writers: list[int] = []
    sinks: list[Sink] = []
    try:
        for _ in range(2):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            writers.append(writer)
            sinks.append(Sink(reader, None))
    except BaseException:
        for fd in (*writers, *(sink.fd for sink in sinks)):
            os.close(fd)
        raise
    out, err = writers
    return Stdio((first, out, err), writers, sinks)
