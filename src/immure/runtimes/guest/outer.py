"""Commands of ours in the outer box, beside what carries a box."""

from __future__ import annotations

import os
from typing import Self

from immure.plan.launch import Launch
from immure.runtimes.base import Commands
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.course import Sink
from immure.runtimes.process.request import Request

#: How long one may take, unless it is said.
STEP_S = 20.0


def carrier_request(launch: Launch, argv: tuple[str, ...], user: int = 0) -> Request:
    """A command of the outer box, with nothing of the workload's environment."""
    request = Request(launch, [one.encode() for one in argv])
    request.uid = request.gid = user
    request.set_env({b"PATH": b"/", b"HOME": b"/tmp"})
    request.workdir = "/"
    request.timeout_s = STEP_S
    return request


class UnderWay:
    """A command, or an operation of the native program, beside which something else can be done. Leaving it ends it.

    `first` is its standard input, and with `into` its output goes to that descriptor; both stay the caller's. Raises
    BoxLost.
    """

    def __init__(
        self,
        box: Commands,
        request: Request,
        first: int | None = None,
        *,
        builtin: bool = False,
        into: int | None = None,
    ) -> None:
        self.box = box
        self._stdio = _captured(first, into)
        try:
            self._asker = box.start(request.payload(), self._stdio.theirs, hold=True, builtin=builtin)
        except BaseException:
            self._stdio.done()
            raise
        self._stdio.given()
        self.attendance = Attendance(box, self._asker, self._stdio, request)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stdio.done()
        if self.attendance.exit is not None:
            self.box.give_back(self._asker)
        else:
            self._asker.close()

    def ended(self) -> Attendance:
        """It has ended or has had its time. The two sinks have what it wrote. Raises BoxLost."""
        self.attendance.see_through(self._stdio, None)
        return self.attendance


def attended(box: Commands, request: Request, first: int | None = None, *, builtin: bool = False) -> Attendance:
    """The same where there is nothing else to do."""
    with UnderWay(box, request, first, builtin=builtin) as command:
        return command.ended()


def _captured(first: int | None, into: int | None = None) -> Stdio:
    writers: list[int] = []
    sinks: list[Sink] = []
    try:
        for target in (into, None):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            writers.append(writer)
            sinks.append(Sink(reader, target))
    except BaseException:
        for fd in (*writers, *(sink.fd for sink in sinks)):
            os.close(fd)
        raise
    out, err = writers
    return Stdio((first, out, err), writers, sinks)
