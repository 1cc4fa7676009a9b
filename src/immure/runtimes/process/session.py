"""From a launch to its outcome: a box for one command, or a box that stays, with the level measured first.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import os
from time import monotonic, perf_counter_ns

from immure.errors import LevelNotReached
from immure.evidence.levels import award, capped_by
from immure.evidence.readback import Finding, held_parts, judge
from immure.plan.launch import Launch
from immure.runtimes.process import frames
from immure.runtimes.process.attend import Attendance, Sink
from immure.runtimes.process.box import Box
from immure.runtimes.process.spawner import Spawner

_NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
_own_namespaces: dict[str, int] = {}


def own_namespaces() -> dict[str, int]:
    """This process's namespaces as inode numbers. They are asked for once: it does not change them."""
    if not _own_namespaces:
        for name in _NAMESPACES:
            _own_namespaces[f"ns/{name}"] = os.stat(f"/proc/self/ns/{name}").st_ino  # noqa: PTH116
    return _own_namespaces


class Measured:
    """What was measured of a box before its first command."""

    __slots__ = ("awarded", "findings", "items")

    def __init__(self, items: dict[str, bytes], findings: list[Finding]) -> None:
        self.items = items
        self.findings = findings
        self.awarded = award(held_parts(findings))


class Request:
    """A command: bytes throughout, as execve takes them."""

    __slots__ = ("argv", "env", "gid", "output_bytes", "timeout_s", "uid", "workdir")

    def __init__(self, launch: Launch, argv: list[bytes]) -> None:
        self.argv = argv
        self.env = {os.fsencode(name): os.fsencode(value) for name, value in launch.env.items()}
        self.uid = self.gid = launch.user
        self.workdir = launch.workdir
        self.timeout_s = launch.timeout_s
        self.output_bytes = launch.output_bytes

    def payload(self) -> bytes:
        """The request as the stem reads it."""
        return frames.exec_payload(self.uid, self.gid, self.workdir, self.argv, self.env)


def measure(box: Box) -> Measured:
    """Waits for the box and measures it. Raises LevelNotReached below the level asked for; the box is then to be closed."""
    items = box.ready()
    launch = box.launch
    measured = Measured(items, judge(items, launch.expected, own_namespaces()))
    if measured.awarded < launch.level:
        missing = [one for one in measured.findings if one.part in capped_by(held_parts(measured.findings))]
        details = "; ".join(f"{one.part}: {one.why} ({one.observed})" for one in missing)
        raise LevelNotReached(
            f"the box was measured at {measured.awarded}, below {launch.level}",
            need=launch.level,
            have=f"{measured.awarded}: {details}",
            hint="see `immure doctor`",
        )
    box.release()
    return measured


class Once:
    """A box for one command. `attendance` and `measured` tell the outcome; `error` why there is none."""

    def __init__(self) -> None:
        self.measured: Measured | None = None
        self.attendance: Attendance | None = None
        self.box: Box | None = None
        self.times_us: dict[str, int] = {}

    def run(
        self,
        spawner: Spawner,
        launch: Launch,
        request: Request,
        stdio: tuple[int, int, int],
        *,
        sinks: list[Sink],
        close: list[int],
        feed: tuple[int, int] | None = None,
        wakeup: int | None = None,
    ) -> None:
        """Runs it to the end. `close` are the box's ends of our pipes, closed once it has them.

        Raises ImmureError; the box is gone on return, whatever happens.
        """
        started = perf_counter_ns()
        payload = request.payload()
        try:
            box = self.box = Box(spawner, launch, one_shot=True)
            try:
                asker = box.start(payload, stdio)
                _close(close)
                self.times_us["create"] = (perf_counter_ns() - started) // 1000
                self.measured = measure(box)
                self.times_us["ready"] = (perf_counter_ns() - started) // 1000 - self.times_us["create"]
                deadline = monotonic() + request.timeout_s if request.timeout_s is not None else None
                self.attendance = Attendance(
                    box,
                    asker,
                    sinks,
                    one_shot=True,
                    deadline=deadline,
                    output_bytes=request.output_bytes,
                    feed=feed,
                    wakeup=wakeup,
                )
                self.attendance.run()
                total = (perf_counter_ns() - started) // 1000
                self.times_us["exec"] = total - self.times_us["create"] - self.times_us["ready"]
            finally:
                box.close()
        finally:
            _close(close)


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
