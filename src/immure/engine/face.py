"""What a box that stays shows of itself, whether its caller blocks or awaits."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from immure.engine.command import Argument, make_request, make_result
from immure.engine.deadlines import watch_over
from immure.engine.log import Log, Logs, Record
from immure.engine.ownership import check_owner
from immure.engine.process import Process
from immure.engine.process_face import hear_start
from immure.engine.result import BoxStats, Levels, Result
from immure.engine.session import Measured
from immure.engine.snapshot import Origin
from immure.engine.stdio import DEFAULT_TERM, captured, open_terminal, streamed
from immure.errors import BoxError, BoxLost, RuntimeUnavailable, SpecError
from immure.evidence.models import Evidence, make_evidence
from immure.host.tree import below, used
from immure.plan.launch import MACHINES, Launch
from immure.runtimes.base import Box, Commands
from immure.runtimes.guest.box import GuestBox
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.cgroups import oom_kills
from immure.runtimes.process.course import Course
from immure.runtimes.process.faults import box_paused
from immure.runtimes.process.pipes import make_ahead
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Socket, hang_up
from immure.runtimes.process.stem import ask
from immure.spec.keywords import check_environment

P = TypeVar("P")
State = Literal["created", "starting", "ready", "paused", "failed", "stopped", "removed"]

#: The kernel's (uid_t) -1.
_NO_USER = 0xFFFF_FFFF
#: How long a pause may take to come to rest, in a virtual machine, whose processor may be emulated, and how often to
#: look.
PAUSING_S, MACHINE_PAUSING_S, LOOK_S = 2.0, 20.0, 0.001
_MOST_LOG_MIB = 1 << 20


class BoxFace:
    """A box that stays, from its spec on. `Sandbox` and `AsyncSandbox` add what waits."""

    id: str
    name: str
    #: What its commands did and wrote, for who follows it; `logs` gives what is kept of it.
    log: Log
    _launch: Launch
    _stem: Commands
    _measured: Measured

    def __init__(self, name: str, *, log_mib: float = 1) -> None:
        if not 0 <= log_mib <= _MOST_LOG_MIB:
            raise SpecError("no such size of a log", path="log_mib", need=f"0 to {_MOST_LOG_MIB}", have=str(log_mib))
        self.id = secrets.token_hex(6)
        self.name = name
        self._owner = os.getpid()
        self._oom_kills = 0
        self._starting = self._killed = False
        #: What it goes on from.
        self._restored: Origin | None = None
        self.log = Log(int(log_mib * (1 << 20)))
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether nothing in it runs before `resume`."""
        return self._paused

    @property
    def state(self) -> State:
        """What it is in: `created` and `starting` before it is ready, `ready`, `paused`, `failed` where it has ended by
        itself, `stopped` where it was killed, and `removed` once it is closed and gone.
        """
        if not hasattr(self, "_stem"):
            return "starting" if self._starting else "created"
        if self._stem.left:
            return "removed"
        if self._killed:
            return "stopped"
        if not self._stem.alive():
            return "failed"
        return "paused" if self.paused else "ready"

    def evidence(self) -> Evidence:
        """What was measured of the box before its first command, part by part, and the level that it comes to."""
        return make_evidence(
            self.id,
            self._launch,
            self._measured.items,
            self._measured.findings,
            restored=self._restored is not None,
        )

    @property
    def level(self) -> Levels:
        """The level asked for and the one awarded, which is never lower: a box that is below is not made."""
        return Levels(asked=self._launch.level, awarded=self._measured.awarded)

    def stats(self) -> BoxStats:
        """What the box uses now. Raises BoxLost where it can't be used."""
        self._check_usable()
        first = self._stem.pid
        found = [one for one in map(used, below(first)) if one is not None]
        own = used(first)
        # Where the first process is no stem, that is among those below.
        ours = self._launch.own_processes - 1
        hidden = bool(self._launch.carrier)
        return BoxStats(
            processes=None if hidden else max(0, len(found) - ours),
            threads=None if hidden else max(0, sum(one.threads for one in found) - ours),
            cpu_ms=sum(one.cpu_ms for one in found) + (own.cpu_ms if own is not None else 0),
            resident_bytes=sum(one.resident_bytes for one in found),
        )

    def logs(self, command: int | None = None, tail: int | None = None) -> Logs:
        """What its commands did and wrote, as far as it came through here: the newest `log_mib` of it.

        `command` is the number of one of them, from 1 on, and `tail` how many entries there are to be at most, the last
        ones. What `files` does is not in it. A box that is closed still has its log.
        """
        self._check_owner()
        return self.log.read(command, tail)

    def kill(self) -> None:
        """Ends the box and everything in it at once, whatever waits for it. `close` waits until it is gone."""
        self._check_owner()
        if not self._stem.left:
            self._killed = True
            self._stem.kill()

    def request(
        self,
        argv: Sequence[Argument],
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: int | None = None,
        timeout_s: float | None = None,
        output_mib: float | None = None,
    ) -> Request:
        """A command of this box. Raises SpecError for bad input, and BoxLost where the box can't be used."""
        self._check_usable()
        if self._paused:
            raise box_paused()
        request = make_request(self._launch, argv)
        if env:
            own = check_environment(env).items()
            request.add_env({os.fsencode(key): os.fsencode(value) for key, value in own})
        request.workdir = workdir if workdir is not None else request.workdir
        if user is not None:
            if not isinstance(user, int) or not 0 <= user < _NO_USER:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SpecError("no such user id", path="user", need=f"0 to {_NO_USER - 1}", have=str(user))
            request.uid = request.gid = user
        request.timeout_s = timeout_s if timeout_s is not None else request.timeout_s
        if output_mib is not None:
            request.output_bytes = int(output_mib * (1 << 20))
        return request

    def carry_out(
        self,
        request: Request,
        stdio: Stdio,
        *,
        builtin: bool = False,
        record: Record | None = None,
        attending: Callable[[Attendance | None], None] | None = None,
    ) -> Attendance:
        """Runs a command, or an operation of the native program, and waits for its end. Streams are closed in any case.

        `attending` is given what another thread can stop it by, and None when that must not be used any more.
        """
        try:
            owner = self._measured.host_ids(request.uid, request.gid)
            asker = ask(self._stem, request, stdio, owner, hold=True, builtin=builtin)
        except BaseException:
            stdio.done()
            make_ahead()
            raise
        try:
            # It is under way: what is done here is done beside it.
            attendance = Attendance(self._stem, asker, stdio, request)
            if record is not None:
                record.begun()
                attendance.heard = record.wrote
            if attending is not None:
                attending(attendance)
            make_ahead()
            attendance.see_through(stdio, watch_over)
        except BaseException:
            # It ends the command.
            hang_up(asker)
            stdio.done()
            raise
        finally:
            if attending is not None:
                attending(None)
        if attendance.exit is not None:
            self._stem.give_back(asker)
        return attendance

    def _capture(self, request: Request, stdin: bytes | None, record: Record) -> Course:
        """Runs a command, keeps what it writes, and waits for its end."""
        if stdin:
            return self.carry_out(request, captured(stdin), record=record)
        one = self._stem.begin(request, self._measured.host_ids(request.uid, request.gid))
        try:
            # It is under way: what is done here is done beside it.
            record.begun()
            one.heard = record.wrote
            if request.timeout_s is not None:
                watch_over(one, request.timeout_s)
            one.run()
        finally:
            one.leave()
        return one

    def open_streams(
        self, request: Request, stdin: bytes | int | None, pty: tuple[int, int] | bool
    ) -> tuple[Stdio, int | None]:
        """The streams of a command to be started, and the descriptor to write its input to, if there is one."""
        if not pty:
            return streamed(stdin)
        if b"TERM" not in request.env:
            request.add_env({b"TERM": DEFAULT_TERM})
        return open_terminal(self._stem, pty)

    def is_bounded(self, output_mib: float | None) -> bool:
        """Whether somebody has said how much a command may write."""
        return output_mib is not None or self._launch.output_bytes is not None

    def begin(self, request: Request, stdio: Stdio, writer: int | None, *, bounded: bool, builtin: bool) -> Process:
        """Starts a command, or an operation, that is under way on return. What is passed is closed in any case."""
        record = None if builtin else self.log.begin(request.argv)
        try:
            asker = self.ask(request, stdio, tell=not builtin, terminal=stdio.terminal, builtin=builtin)
            try:
                if not builtin:
                    hear_start(self._stem, asker, request)
                return self._started(
                    Process(self._stem, asker, stdio, writer, request, self.result, bounded=bounded, record=record)
                )
            except BaseException:
                hang_up(asker)
                raise
        except BaseException as error:
            stdio.done()
            if writer is not None:
                os.close(writer)
            if record is not None:
                record.failed(error)
            raise

    def _started(self, process: P) -> P:
        """Sees every command that is handed out while it runs."""
        return process

    def _adopted(self, kind: Callable[..., P], box: Box) -> Iterator[P]:
        """What was under way in a box that is restored, as commands of this one; nothing in any other."""
        if self._restored is None or not isinstance(box, GuestBox):
            return
        for one in box.adopted():
            payload = self._restored.standing.commands.get(one.stream)
            if payload is None:
                # It was over, and its end under way.
                one.close()
                continue
            request = Request.of(self._launch, payload)
            record = self.log.begin(request.argv)
            yield kind(box, one.asker, one.stdio, one.writer, request, self.result, bounded=True, record=record)

    def _base_launch(self) -> Launch:
        """What a copy of the box is made by: without what this one itself was restored from."""
        return self._restored.base if self._restored is not None else self._launch

    def _pause(self, paused: bool) -> None:
        self._check_usable()
        if self._launch.own_processes > 1:
            raise RuntimeUnavailable(
                "this box can't be paused",
                need="a pid namespace, in which all processes are the box's",
                have="processes beside those of the host",
                hint="use namespaces: all",
            )
        self._stem.pause(paused)
        self._paused = paused

    def _pausing_s(self) -> float:
        """How long everything has to stop."""
        return MACHINE_PAUSING_S if self._launch.runtime in MACHINES else PAUSING_S

    def _moving(self) -> int:
        """How much of a box that is to be paused runs yet."""
        return self._stem.moving()

    def _not_at_rest(self) -> BoxError:
        return BoxError(
            "not everything in the box has stopped",
            need="processes that stop when they are told to",
            have=f"{self._moving()} that wait for a disk, and stop when that has answered",
            hint="wait and look at stats(), or resume()",
        )

    def ask(self, request: Request, stdio: Stdio, **manner: bool) -> Socket:
        """Asks for it, as `Box.start`, and lets go of what it alone is to hold."""
        return ask(self._stem, request, stdio, self._measured.host_ids(request.uid, request.gid), **manner)

    def result(self, request: Request, attendance: Course, exec_us: int) -> Result:
        """The result of a command of this box. Raises as `judge_end` does."""
        oom = self._new_oom_kills() if self._launch.cgroups else 0
        return make_result(request, attendance, None, self._measured, {"exec": exec_us}, self.name, self.id, oom=oom)

    def _new_oom_kills(self) -> int:
        """Kills since the last look. Of two commands at once either may be told of the other's."""
        seen = oom_kills(self._launch, self._measured.items.get("cgroup.name"))
        new, self._oom_kills = seen - self._oom_kills, seen
        return new

    def _check_owner(self) -> None:
        check_owner(self._owner, "box", "make a Sandbox after the fork")

    def _check_usable(self) -> None:
        if self._owner != os.getpid():
            self._check_owner()
        if self._stem.left:
            raise BoxLost("the box is closed", need="a box in use", hint="make a new Sandbox")

    def __repr__(self) -> str:
        awarded = self._measured.awarded if hasattr(self, "_measured") else "not made"
        return f"<{type(self).__name__} {self.name} {self.id} {awarded}>"
