"""Boxes on this machine: `run` for one command, `Sandbox` for many. Blocking; no event loop is ever run."""

from __future__ import annotations

import marshal
import os
import secrets
import shlex
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from types import TracebackType
from typing import Any

from immure.engine.cache import kind_of
from immure.engine.prepare import prepare
from immure.engine.presets import preset_mounts
from immure.engine.result import Exit, Levels, Output, Result, Truncated, Usage
from immure.engine.spawners import replace, spawner_for
from immure.engine.stdio import captured
from immure.engine.verdict import judge_end, memory_peak
from immure.errors import BoxLost, SpecError
from immure.evidence.models import Evidence, make_evidence
from immure.plan.launch import Launch
from immure.plan.limits import DEFAULT_OUTPUT_MIB
from immure.plan.report import Clause
from immure.policy.seccomp import PRESETS
from immure.runtimes.process.attend import Attendance, Sink
from immure.runtimes.process.box import Box, Ended
from immure.runtimes.process.cgroups import oom_kills
from immure.runtimes.process.request import Request
from immure.runtimes.process.session import Measured, Once, measure
from immure.runtimes.process.spawner import Spawner
from immure.spec.keywords import check_environment, check_name, spec_from_keywords
from immure.spec.models import SandboxSpec

#: The kernel's (uid_t) -1.
_NO_USER = 0xFFFF_FFFF
Argument = str | bytes | os.PathLike[str]


def run(
    argv: Sequence[Argument],
    *,
    spec: SandboxSpec | None = None,
    preset: str | None = None,
    stdin: bytes | None = None,
    name: str = "immure",
    **keywords: Any,
) -> Result:
    """Runs one command in a box of its own and waits for it.

    `keywords` are the spec's short forms: level, mounts, env, workdir, network, user, seccomp, limits (or its members
    by themselves: timeout_s, memory_mib, …). Output is kept up to `output_mib`, 16 MiB by default.

    Raises SpecError for bad input, ProtectionUnavailable and RuntimeUnavailable where this host can't, LevelNotReached
    where the measured level is too low, ExecFailed where the command can't be started, and other BoxErrors.
    """
    began = perf_counter_ns()
    launch = _prepare(spec, preset, keywords, name)
    request = make_request(launch, argv)
    planned = perf_counter_ns()
    once = Once()
    try:
        once.run(spawner_for(launch), request, lambda: captured(stdin))
    except BoxLost:
        if once.measured is not None or once.spawner is None or not once.spawner.gone():
            raise
        # The spawner was killed before anything ran: another one is asked, once.
        spawner = replace(launch, once.spawner)
        once = Once()
        once.run(spawner, request, lambda: captured(stdin))
    return make_result(request, once, name=name, box=secrets.token_hex(6), planned_us=(planned - began) // 1000)


def make_result(request: Request, once: Once, *, name: str, box: str, planned_us: int) -> Result:
    """The result of a box for one command that has run. Raises as `judge_end` does."""
    assert once.attendance is not None
    assert once.measured is not None
    times = {"plan": planned_us, **once.times_us}
    ended = once.box.ended if once.box is not None else None
    return _result(request, once.attendance, ended, once.measured, times, name, box)


class Sandbox:
    """A box that stays until it is closed, for many commands. A context manager.

    Its keywords are those of `run`. A box belongs to the process that made it: a forked child can't use it.
    """

    def __init__(
        self,
        spec: SandboxSpec | None = None,
        *,
        preset: str | None = None,
        name: str = "immure",
        **keywords: Any,
    ) -> None:
        self.id = secrets.token_hex(6)
        self.name = name
        self._owner = os.getpid()
        self._launch = _prepare(spec, preset, keywords, name)
        self._closing = threading.Lock()
        self._oom_kills = 0
        spawner = spawner_for(self._launch)
        try:
            self._box, self._measured = _measured_box(spawner, self._launch)
        except BoxLost:
            if not spawner.gone():
                raise
            # The spawner was killed under it: another one is asked, once.
            self._box, self._measured = _measured_box(replace(self._launch, spawner), self._launch)

    def exec(
        self,
        argv: Sequence[Argument],
        *,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: int | None = None,
        timeout_s: float | None = None,
        output_mib: float | None = None,
    ) -> Result:
        """Runs one command in the box and waits for it. `env` adds to the box's environment.

        Raises ExecFailed where the command can't be started and BoxLost where the box is gone.
        """
        self._check_usable()
        request = make_request(self._launch, argv)
        if env:
            own = check_environment(env).items()
            request.env.update((os.fsencode(key), os.fsencode(value)) for key, value in own)
        request.workdir = workdir if workdir is not None else request.workdir
        if user is not None:
            if not isinstance(user, int) or not 0 <= user < _NO_USER:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise SpecError("no such user id", path="user", need=f"0 to {_NO_USER - 1}", have=str(user))
            request.uid = request.gid = user
        request.timeout_s = timeout_s if timeout_s is not None else request.timeout_s
        if output_mib is not None:
            request.output_bytes = int(output_mib * (1 << 20))
        began = perf_counter_ns()
        stdio = captured(stdin)
        try:
            owner = self._measured.host_ids(request.uid, request.gid)
            if owner is not None:
                stdio.own(*owner)
            asker = self._box.start(request.payload(), stdio.theirs, hold=True)
            try:
                stdio.given()
                attendance = Attendance(self._box, asker, stdio, request, one_shot=False)
                attendance.run()
            except BaseException:
                # It ends the command.
                asker.close()
                raise
            if attendance.exit is not None:
                self._box.give_back(asker)
        finally:
            stdio.done()
        times = {"exec": (perf_counter_ns() - began) // 1000}
        return _result(request, attendance, None, self._measured, times, self.name, self.id, oom=self._new_oom_kills())

    def _new_oom_kills(self) -> int:
        """Kills since the last look. Of two commands at once either may be told of the other's."""
        seen = oom_kills(self._launch, self._measured.items.get("cgroup.name"))
        new, self._oom_kills = seen - self._oom_kills, seen
        return new

    def evidence(self) -> Evidence:
        """What was measured of the box before its first command."""
        return make_evidence(self.id, self._launch, self._measured.items, self._measured.findings)

    @property
    def level(self) -> Levels:
        """The level asked for and the one awarded."""
        return Levels(asked=self._launch.level, awarded=self._measured.awarded)

    def close(self) -> None:
        """Ends the box and everything in it, and waits until it is gone. May be called again."""
        if self._owner != os.getpid():
            return
        with self._closing:
            self._box.close()

    def _check_usable(self) -> None:
        if self._owner != os.getpid():
            raise BoxLost(
                "this box belongs to another process",
                need=f"process {self._owner}, which made it",
                have=f"process {os.getpid()}, forked from it",
                hint="make a Sandbox after the fork",
            )
        if self._box.owner.fileno() < 0:
            raise BoxLost("the box is closed", need="a box in use", hint="make a new Sandbox")

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Sandbox {self.name} {self.id} {self._measured.awarded}>"


def _measured_box(spawner: Spawner, launch: Launch) -> tuple[Box, Measured]:
    box = Box(spawner, launch, one_shot=False)
    try:
        return box, measure(box)
    except BaseException:
        box.close()
        raise


def make_request(launch: Launch, argv: Sequence[Argument]) -> Request:
    """The command of a launch. Raises SpecError for an empty one, or for a string in place of a list."""
    if isinstance(argv, str | bytes) or not argv:
        hint = f"did you mean {shlex.split(argv)!r}?" if isinstance(argv, str) and argv else None
        raise SpecError(
            "a command is a list of arguments",
            path="$.spec.command",
            need="at least one",
            have=repr(argv),
            hint=hint,
        )
    request = Request(launch, [os.fsencode(one) for one in argv])
    if request.output_bytes is None:
        request.output_bytes = DEFAULT_OUTPUT_MIB << 20
    return request


def _prepare(spec: SandboxSpec | None, preset: str | None, keywords: Mapping[str, Any], name: str) -> Launch:
    key = _call_key(spec, preset, keywords, name)
    launch = _launches.get(key) if key is not None else None
    if launch is not None and all(kind_of(path) == kind for path, kind in launch.sources):
        return launch
    given = dict(keywords)
    if preset is not None:
        given["mounts"] = [*(given.get("mounts") or ()), *preset_mounts(preset)]
    wanted = spec_from_keywords(given, spec)
    launch = prepare(wanted, base=Path.cwd(), hostname=check_name(name))
    # A profile in a file may change between two calls.
    if key is not None and wanted.syscalls.profile in PRESETS:
        _launches[key] = launch
    return launch


_launches: dict[bytes, Launch] = {}


def _call_key(spec: SandboxSpec | None, preset: str | None, keywords: Mapping[str, Any], name: str) -> bytes | None:
    """What the same call made again is known by; None where it can't be told."""
    if spec is not None:
        return None
    here = (os.getpid(), os.geteuid(), os.getcwd(), os.environ.get("HOME"))  # noqa: PTH109
    try:
        return marshal.dumps((here, preset, dict(keywords), name), 2)
    except ValueError:
        return None


def _result(
    request: Request,
    attendance: Attendance,
    ended: Ended | None,
    measured: Measured,
    times_us: dict[str, int],
    name: str,
    box: str,
    *,
    oom: int = 0,
) -> Result:
    launch = request.launch
    verdict = judge_end(request, attendance, ended, oom=oom)
    out, err = attendance.sinks if len(attendance.sinks) == 2 else (Sink(-1, None), Sink(-1, None))
    seen = attendance.exit
    return Result(
        id=box,
        name=name,
        runtime=launch.runtime,
        argv=tuple(os.fsdecode(one) for one in request.argv),
        exit=Exit(kind=verdict.kind, code=verdict.code, signal=verdict.signal),  # pyright: ignore[reportArgumentType]
        level=Levels(asked=launch.level, awarded=measured.awarded),
        report=_report(launch),
        denials=(),
        denials_complete=False,
        usage=Usage(
            wall_ms=times_us["exec"] // 1000,
            cpu_ms=seen.cpu_ms if seen is not None else 0,
            memory_peak_bytes=memory_peak(ended) if ended is not None else (seen.memory_peak_bytes if seen else 0),
            pids_peak=_pids_peak(ended, launch.own_processes),
            stdout_bytes=out.count,
            stderr_bytes=err.count,
        ),
        truncated=Truncated(stdout=out.truncated, stderr=err.truncated),
        times_us=times_us,
        plan_sha256=launch.plan_sha256,
        host_sha256=launch.host_sha256,
        stdout=Output(out.data),
        stderr=Output(err.data),
    )


_reports: dict[tuple[tuple[str, ...], ...], tuple[Clause, ...]] = {}


def _report(launch: Launch) -> tuple[Clause, ...]:
    """The clauses of a launch, made once for all commands of its boxes."""
    report = _reports.get(launch.report)
    if report is None:
        report = tuple(Clause(*row) for row in launch.report)  # pyright: ignore[reportArgumentType]
        _reports[launch.report] = report
    return report


def _pids_peak(ended: Ended | None, ours: int) -> int | None:
    content = ended.counters.get("pids.peak", b"").strip() if ended is not None else b""
    return max(0, int(content) - ours) if content.isdigit() else None
