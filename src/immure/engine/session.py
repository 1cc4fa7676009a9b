"""From a launch to its outcome: a box for one command, or a box that stays, with the level measured first.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import os
from time import perf_counter_ns

from immure.errors import BoxLost, LevelNotReached, SetupFailed
from immure.evidence.levels import award, boundary_of, capped_by, has_hardware
from immure.evidence.readback import Finding, held_parts, judge
from immure.plan.launch import MACHINES, Launch
from immure.runtimes.process import frames
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.box import Box as ProcessBox
from immure.runtimes.process.course import Exit
from immure.runtimes.process.faults import exec_failed
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, Spawner, receive
from immure.runtimes.registry import open_box

TYPE_CHECKING = False
if TYPE_CHECKING:
    # An import that only annotations need has no place on the hot path.
    from collections.abc import Callable
    from typing import TypeVar

    from immure.runtimes.base import Box

    T = TypeVar("T")

#: What fails where the memory of a machine that had booted can't be gone on from.
_RESUMING = ("restore", "qemu")
_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_own_namespaces: dict[str, int] = {}


def own_namespaces() -> dict[str, int]:
    """This process's namespaces as inode numbers. They are asked for once: it does not change them."""
    if not _own_namespaces:
        # All in one step: another thread may look meanwhile.
        _own_namespaces.update({f"ns/{name}": os.stat(f"/proc/self/ns/{name}").st_ino for name in _NAMESPACES})  # noqa: PTH116
    return _own_namespaces


class Measured:
    """What was measured of a box before its first command."""

    __slots__ = ("_bases", "awarded", "findings", "items")

    def __init__(self, launch: Launch, items: dict[str, bytes], findings: tuple[Finding, ...]) -> None:
        self.items = items
        self.findings = findings
        held = held_parts(findings)
        self.awarded = award(held, boundary_of(held), hardware=has_hardware(held))
        self._bases: tuple[int, int] | None = None
        if launch.root and not launch.carrier and items.get("map/uid"):
            # As root a box has one range: `0 BASE SIZE`.
            self._bases = int(items["map/uid"].split()[1]), int(items["map/gid"].split()[1])

    def host_ids(self, uid: int, gid: int) -> tuple[int, int] | None:
        """What a user and group of the box are on the host, where that differs from who we are."""
        return (self._bases[0] + uid, self._bases[1] + gid) if self._bases is not None else None


def measure(box: Box, before_release: Callable[[Measured], None] | None = None) -> Measured:
    """Waits for the box and measures it. `before_release` is called while its first command still waits.

    Raises LevelNotReached below the level asked for; the box is then to be closed.
    """
    launch = box.launch
    try:
        items = box.ready()
    except SetupFailed as error:
        if error.step in _RESUMING:
            from immure.engine.booted_machines import forget_booted

            forget_booted(launch)
        raise
    measured = Measured(launch, items, judge_items(items, launch, own_namespaces()))
    if measured.awarded < launch.level:
        missing = [one for one in measured.findings if one.part in capped_by(held_parts(measured.findings))]
        missing = missing or [one for one in measured.findings if not one.held]
        details = "; ".join(f"{one.part}: {one.why} ({one.observed})" for one in missing)
        raise LevelNotReached(
            f"the box was measured at {measured.awarded}, below {launch.level}",
            need=launch.level,
            have=f"{measured.awarded}: {details}",
            hint="see `immure doctor`",
        )
    if before_release is not None:
        before_release(measured)
    box.release()
    return measured


def judge_items(items: dict[str, bytes], launch: Launch, namespaces: dict[str, int]) -> tuple[Finding, ...]:
    """What a box's readback comes to. `namespaces` are the engine's own."""
    if not launch.carrier:
        return judge(items, launch.expected, namespaces)
    if launch.runtime in MACHINES:
        from immure.evidence.machine import judge_machine

        return judge_machine(items, launch.expected, namespaces)
    from immure.evidence.sentry import judge_sentry

    return judge_sentry(items, launch.expected, namespaces)


def _measure_with(
    box: ProcessBox, asker: Socket, request: Request, before_release: Callable[[Measured], None]
) -> Measured:
    """Measures a one-shot box. Its command is the witness, and may fail before there is anything to inspect."""
    try:
        return measure(box, before_release)
    except BoxLost:
        message = receive(asker)[0] if box.ended is not None else b""
        seen = Exit(message) if message else None
        if seen is not None and seen.errno:
            raise exec_failed(request, seen.errno, seen.step) from None
        raise


def _or_the_reason(box: ProcessBox, ask: Callable[[], T]) -> T:
    """Asks something of a box. Where it has failed already, its owner's socket says why."""
    try:
        return ask()
    except BoxLost:
        box.ready()
        raise


def _take_listener(asker: Socket, request: Request, listening: Callable[[int], None]) -> None:
    """Waits for the listener of the command's filter. Where there is none, the box's owner knows why."""
    message, fds = receive(asker)
    if fds and frames.kind_of(message) == frames.LISTENER:
        listening(fds[0])
    elif message:
        seen = Exit(message)
        raise exec_failed(request, seen.errno, seen.step)


def _last_touch(stdio: Stdio, request: Request, attending: Callable[[], None] | None) -> Callable[[Measured], None]:
    """What is done between measuring a box and its command's first instruction."""

    def touch(measured: Measured) -> None:
        owner = measured.host_ids(request.uid, request.gid)
        if owner is not None:
            stdio.own(*owner)
        stdio.settled()
        if attending is not None:
            attending()

    return touch


class Once:
    """A box for one command. `attendance` and `measured` tell the outcome."""

    def __init__(self) -> None:
        self.measured: Measured | None = None
        self.attendance: Attendance | None = None
        self.box: Box | None = None
        self.spawner: Spawner | None = None
        self.times_us: dict[str, int] = {}

    def run(
        self,
        spawner: Spawner,
        request: Request,
        make_stdio: Callable[[Box], Stdio],
        *,
        wakeup: int | None = None,
        attending: Callable[[], None] | None = None,
        listening: Callable[[int], None] | None = None,
        watched: Callable[[Attendance, float | None], None] | None = None,
        beside: Callable[[Box], Callable[[], None]] | None = None,
    ) -> None:
        """Runs it to the end; `attending` is called before the command goes on: from then on signals
        on `wakeup` are passed to it. `listening` is given the listener of a filter that asks a supervisor, and
        `watched` what another thread can end when its time is over. `beside` is given a box with a kernel of its own
        before the command is started, and what it gives is called when that has ended.

        Raises ImmureError; the box is gone on return, whatever happens.
        """
        began = perf_counter_ns()
        self.spawner = spawner
        if request.launch.carrier:
            self._run_in_kernel(began, spawner, request, make_stdio, wakeup, attending, watched, beside)
            return
        box = self.box = ProcessBox(spawner, request.launch, one_shot=True)
        try:
            # The box is under way; everything until `measure` happens beside it.
            stdio = _or_the_reason(box, lambda: make_stdio(box))
            try:
                asker = _or_the_reason(box, lambda: box.start(request.payload(), stdio.theirs, terminal=stdio.terminal))
                stdio.given()
                if listening is not None:
                    _take_listener(asker, request, listening)
                created = perf_counter_ns()
                self.measured = _measure_with(box, asker, request, _last_touch(stdio, request, attending))
                ready = perf_counter_ns()
                self.attendance = Attendance(box, asker, stdio, request, own=box, wakeup=wakeup)
                self.attendance.see_through(stdio, watched)
                self.times_us = _times(began, created, ready)
            finally:
                stdio.done()
        finally:
            box.close()

    def _run_in_kernel(
        self,
        began: int,
        spawner: Spawner,
        request: Request,
        make_stdio: Callable[[Box], Stdio],
        wakeup: int | None,
        attending: Callable[[], None] | None,
        watched: Callable[[Attendance, float | None], None] | None,
        beside: Callable[[Box], Callable[[], None]] | None,
    ) -> None:
        """The same where a kernel of the box's own comes first: that is measured, and then the command is started."""
        box = self.box = open_box(spawner, request.launch)
        try:
            created = perf_counter_ns()
            self.measured = measure(box)
            ready = perf_counter_ns()
            ended = beside(box) if beside is not None else None
            try:
                self._run_in(box, request, make_stdio, wakeup, attending, watched)
                if request.launch.changes:
                    from immure.engine.changes import bring_back

                    bring_back(box)
                self.times_us = _times(began, created, ready)
            finally:
                if ended is not None:
                    ended()
        finally:
            box.close()

    def _run_in(
        self,
        box: Box,
        request: Request,
        make_stdio: Callable[[Box], Stdio],
        wakeup: int | None,
        attending: Callable[[], None] | None,
        watched: Callable[[Attendance, float | None], None] | None,
    ) -> None:
        stdio = make_stdio(box)
        try:
            if attending is not None:
                # Once it runs, it may be heard of, and sent a signal, before anything else happens here.
                attending()
            asker = box.start(request.payload(), stdio.theirs, hold=True, terminal=stdio.terminal)
            stdio.given()
            stdio.settled()
            self.attendance = Attendance(box, asker, stdio, request, wakeup=wakeup)
            self.attendance.see_through(stdio, watched)
        finally:
            stdio.done()


def _times(began: int, created: int, ready: int) -> dict[str, int]:
    return {
        "create": (created - began) // 1000,
        "ready": (ready - created) // 1000,
        "exec": (perf_counter_ns() - ready) // 1000,
    }
