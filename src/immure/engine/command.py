"""A command as it is called for, and the result that its caller gets."""

from __future__ import annotations

import marshal
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from immure.engine.cache import is_current
from immure.engine.prepare import prepare
from immure.engine.presets import preset_mounts
from immure.engine.result import Exit, Levels, Output, Result, Truncated, Usage
from immure.engine.session import Measured
from immure.engine.verdict import judge_end, memory_peak
from immure.errors import SpecError
from immure.plan.launch import MACHINES, Launch
from immure.plan.limits import DEFAULT_OUTPUT_MIB
from immure.plan.report import Clause
from immure.policy.seccomp import PRESETS
from immure.runtimes.process.course import Course, Sink
from immure.runtimes.process.request import Request
from immure.runtimes.process.stem import Ended
from immure.spec.keywords import check_name, spec_from_keywords
from immure.spec.models import SandboxSpec

Argument = str | bytes | os.PathLike[str]
_ONE_STRING = (str, bytes)
#: What `os.fsencode` does with a string, and `os.fsdecode` with bytes, without their checks.
_CODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


def make_request(launch: Launch, argv: Sequence[Argument]) -> Request:
    """The command of a launch. Raises SpecError for an empty one, or for a string in place of a list."""
    if isinstance(argv, _ONE_STRING) or not argv:
        hint = f"did you mean {shlex.split(argv)!r}?" if isinstance(argv, str) and argv else None
        raise SpecError(
            "a command is a list of arguments",
            path="$.spec.command",
            need="at least one",
            have=repr(argv),
            hint=hint,
        )
    request = Request(launch, [one.encode(_CODING, _ERRORS) if type(one) is str else os.fsencode(one) for one in argv])
    if request.output_bytes is None:
        request.output_bytes = DEFAULT_OUTPUT_MIB << 20
    return request


def prepare_call(spec: SandboxSpec | None, preset: str | None, keywords: Mapping[str, Any], name: str) -> Launch:
    """The launch of a call of `run` or `Sandbox`, remembered by what it was given. Raises ImmureError."""
    key = _call_key(spec, preset, keywords, name)
    launch = _launches.get(key) if key is not None else None
    if launch is not None and is_current(launch):
        return launch
    given = dict(keywords)
    if preset is not None:
        given["mounts"] = [*(given.get("mounts") or ()), *preset_mounts(preset)]
    wanted = spec_from_keywords(given, spec)
    launch = prepare(wanted, base=Path.cwd(), hostname=check_name(name))
    # A profile in a file may change between two calls, and so may what is packed for a machine.
    if key is not None and wanted.syscalls.profile in PRESETS and launch.runtime not in MACHINES:
        _launches[key] = launch
    return launch


_launches: dict[bytes, Launch] = {}


def _call_key(spec: SandboxSpec | None, preset: str | None, keywords: Mapping[str, Any], name: str) -> bytes | None:
    """What the same call made again is known by; None where it can't be told."""
    if spec is not None:
        return None
    named = [os.environ.get(name) for name in ("HOME", "IMMURE_RUNSC", "PATH")]
    here = (os.getpid(), os.geteuid(), os.getcwd(), named)  # noqa: PTH109
    try:
        return marshal.dumps((here, preset, dict(keywords), name), 2)
    except ValueError:
        return None


def make_result(
    request: Request,
    attendance: Course,
    ended: Ended | None,
    measured: Measured,
    times_us: dict[str, int],
    name: str,
    box: str,
    *,
    oom: int = 0,
) -> Result:
    """The result of a command that has ended. Raises as `judge_end` does."""
    launch = request.launch
    verdict = judge_end(request, attendance, ended, oom=oom)
    out, err = attendance.sinks if len(attendance.sinks) == 2 else _streams(attendance)
    seen = attendance.exit
    return Result(
        id=box,
        name=name,
        runtime=launch.runtime,
        argv=tuple([one.decode(_CODING, _ERRORS) for one in request.argv]),
        exit=Exit(kind=verdict.kind, code=verdict.code, signal=verdict.signal),  # pyright: ignore[reportArgumentType]
        level=Levels(asked=launch.level, awarded=measured.awarded),
        report=_report(launch),
        denials=(),
        denials_complete=False,
        usage=Usage(
            wall_ms=times_us["exec"] // 1000,
            cpu_ms=seen.cpu_ms if seen is not None else 0,
            memory_peak_bytes=memory_peak(ended) if ended is not None else (seen.memory_peak_bytes if seen else 0),
            pids_peak=_pids_peak(ended, launch.own_processes) if ended is not None else None,
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


def _streams(attendance: Course) -> tuple[Sink, Sink]:
    """Standard output and error as far as they came to us, where they are not two: a terminal has one stream."""
    match attendance.sinks:
        case [shown] if shown.target is None:
            return shown, Sink(-1, None)
        case _:
            return Sink(-1, None), Sink(-1, None)


def _report(launch: Launch) -> tuple[Clause, ...]:
    """The clauses of a launch, made once for all commands of its boxes."""
    try:
        return launch.clauses  # pyright: ignore[reportReturnType]
    except AttributeError:
        made = tuple(Clause(*row) for row in launch.report)  # pyright: ignore[reportArgumentType]
        launch.clauses = made
        return made


def _pids_peak(ended: Ended, ours: int) -> int | None:
    content = ended.counters.get("pids.peak", b"").strip()
    return max(0, int(content) - ours) if content.isdigit() else None
