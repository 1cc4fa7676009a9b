"""One command in a box of its own, blocking; no event loop is ever run."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from immure.engine.command import Argument, make_request, make_result, prepare_call
from immure.engine.deadlines import watch_over
from immure.engine.result import Result, with_denials
from immure.engine.session import Once
from immure.engine.spawners import replace, spawner_for
from immure.engine.stdio import captured
from immure.errors import BoxLost
from immure.runtimes.process.request import Request
from immure.spec.models import SandboxSpec

if TYPE_CHECKING:
    from immure.engine.denial_watch import WatchedOnce
    from immure.plan.launch import Launch


def run(
    argv: Sequence[Argument],
    *,
    spec: SandboxSpec | None = None,
    preset: str | None = None,
    stdin: bytes | None = None,
    name: str = "immure",
    denials: bool = False,
    **keywords: Any,
) -> Result:
    """Runs one command in a box of its own, and comes back when all of the box is gone.

    `argv` is a list: there is no shell. `spec` is what to start from, and `keywords` go on top, in the spec's short
    forms: level, mounts, env, workdir, network, user, seccomp, capabilities, namespaces, landlock, protections, limits
    (or its members by themselves: memory_mib, cpus, pids, disk_mib, timeout_s, output_mib). `preset="python"` mounts
    the calling interpreter. `stdin` is what the command reads, nothing by default, and `name` the host name in the box.
    Output is kept up to `output_mib` of both streams together, 16 MiB by default; what writes more is ended.

    `denials=True` has the Sentry of an L3 box tell what it refuses the command: `Result.denials`.

    That a command fails is no error: look at `Result.exit`. Raises SpecError for bad input, ProtectionUnavailable and
    RuntimeUnavailable where this host can't, LevelNotReached where the measured level is too low, ExecFailed where the
    command can't be started, and other BoxErrors.
    """
    began = perf_counter_ns()
    launch = prepare_call(spec, preset, keywords, name)
    request = make_request(launch, argv)
    watched = _watched(launch) if denials else None
    beside = watched.begin if watched is not None else None
    planned = perf_counter_ns()
    once = Once()
    try:
        once.run(spawner_for(launch), request, lambda _: captured(stdin), watched=watch_over, beside=beside)
    except BoxLost:
        if once.measured is not None or once.spawner is None or not once.spawner.gone():
            raise
        # The spawner was killed before anything ran: another one is asked, once.
        spawner = replace(launch, once.spawner)
        once = Once()
        once.run(spawner, request, lambda _: captured(stdin), watched=watch_over, beside=beside)
    result = result_of_once(request, once, name=name, box=secrets.token_hex(6), planned_us=(planned - began) // 1000)
    return result if watched is None else with_denials(result, watched.found)


def _watched(launch: Launch) -> WatchedOnce:
    from immure.engine.denial_watch import WatchedOnce

    return WatchedOnce(launch)


def result_of_once(request: Request, once: Once, *, name: str, box: str, planned_us: int) -> Result:
    """The result of a box for one command that has run. Raises as `judge_end` does."""
    assert once.attendance is not None
    assert once.measured is not None
    times = {"plan": planned_us, **once.times_us}
    ended = once.box.ended if once.box is not None else None
    return make_result(request, once.attendance, ended, once.measured, times, name, box)
