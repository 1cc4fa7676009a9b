"""A kept box with all that a box can do, for another process than its keeper. Blocking."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from immure.engine.command import Argument, prepare_call
from immure.engine.face import BoxFace, P, State
from immure.engine.keeper.answers import KeptInfo, infos, last_of, logs_of, stats_of
from immure.engine.keeper.client import ask, begin, no_keeper
from immure.engine.keeper.joined import Joined, join
from immure.engine.keeper.tracing import KeptSession
from immure.engine.log import Logs
from immure.engine.process_face import ProcessFace
from immure.engine.result import BoxStats
from immure.engine.tracing import Wanted, check_traceable, wanted
from immure.engine.verbs import Verbs
from immure.errors import BoxLost, SpecError
from immure.plan.launch import Launch
from immure.runtimes.gvisor.trace import MAX_BYTES, MAX_EVENTS, Trace
from immure.runtimes.process.box import open_sources
from immure.spec.models import SandboxSpec

if TYPE_CHECKING:
    from immure.engine.denial_watch import DenialWatch

_MOST_SOURCES = 250


class KeptFace(BoxFace):
    """What `KeptSandbox` and `AsyncKeptSandbox` have in common. Commands are between us and the box."""

    def __init__(self, joined: Joined) -> None:
        super().__init__(joined.name, log_mib=0)
        self._launch = joined.stem.launch
        self.joined = joined
        self.id = joined.id
        self._stem, self._measured = joined.stem, joined.measured
        self._under_way: WeakSet[ProcessFace] = WeakSet()
        if self._launch.cgroups:
            # What was killed before is of no command of ours.
            self._new_oom_kills()

    def open_trace(self, wanted: Wanted, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> Trace:
        """What its Sentry sees from now on. Raises as `Sandbox.trace`."""
        self._check_usable()
        check_traceable(self._launch.runtime, self.level.awarded)
        session = KeptSession(self.name, wanted)
        return Trace(session.listening, session, max_events=max_events, max_bytes=max_bytes)

    def _watch_denials(self) -> DenialWatch:
        from immure.engine.denial_watch import DENIALS, DenialWatch

        return DenialWatch(self.open_trace(DENIALS))

    def _of_keeper(self, verb: str, **arguments: Any) -> Any:
        """What the keeper answers about this box."""
        self._check_usable()
        return ask(verb, {"name": self.name, **arguments})[0]

    @property
    def state(self) -> State:
        """As `Sandbox.state`. Where its keeper does not know it any more it has `failed`."""
        try:
            return super().state
        except BoxLost:
            return "failed"

    @property
    def paused(self) -> bool:
        """Whether nothing in it runs before `resume`, whoever has paused it. Raises BoxLost where it is gone."""
        return self._of_keeper("state") == "paused"

    def _detach(self, argv: Sequence[Argument], env: Mapping[str, str] | None, **others: Any) -> int:
        # What is wrong with it is known before it is asked for.
        words = self.request(argv, env, **others).argv
        return self._of_keeper("start", argv=words, keywords={"env": dict(env or {}), **others})

    def _logs(self, command: int | None, tail: int | None) -> Logs:
        self._check_usable()
        asked = begin("follow", {"name": self.name, "after": 0, "follow": False})
        if asked is None:
            raise no_keeper()
        try:
            return last_of(logs_of(asked), command, tail)
        finally:
            asked.close()

    def _started(self, process: P) -> P:
        assert isinstance(process, ProcessFace)
        self._under_way.add(process)
        return process

    def _leave(self) -> None:
        if self._owner == os.getpid():
            for process in [*self._under_way]:
                process.close()
            self.joined.stem.leave()


class KeptSandbox(KeptFace, Verbs):
    """A box that stays when this process ends: the user's keeper holds it under its name, as for `immure run --keep`.

    `exec`, `start`, `files` and `evidence` are those of `Sandbox`, between this process and the box. A context manager:
    leaving it ends what `start` has started here, and the box stays. `kill` ends the box.
    """

    @classmethod
    def make(
        cls,
        name: str,
        spec: SandboxSpec | None = None,
        *,
        preset: str | None = None,
        **keywords: Any,
    ) -> Self:
        """A new box under a name that is free. The keywords are those of `Sandbox`.

        Raises SpecError for a name that is taken, and as `Sandbox`.
        """
        return cls(keep(prepare_call(spec, preset, keywords, name), name))

    @classmethod
    def attach(cls, name: str) -> Self:
        """The box of this name, whoever of this user has made it. Raises BoxLost where there is none."""
        return cls(join(name))

    @classmethod
    def all(cls) -> tuple[KeptInfo, ...]:
        """The boxes that are kept for this user, oldest first."""
        return infos()

    def trace(
        self,
        points: Sequence[str] | None = None,
        *,
        context: Sequence[str] | None = None,
        optional: Sequence[str] = (),
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> Trace:
        """As `Sandbox.trace`."""
        return self.open_trace(wanted(points, context, optional), max_events, max_bytes)

    def detach(
        self,
        argv: Sequence[Argument],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: int | None = None,
        timeout_s: float | None = None,
        output_mib: float | None = None,
    ) -> int:
        """Starts a command that goes on when this process has ended, and gives its number in the box's log.

        What it writes goes into that log, which keeps the newest 4 MiB. The keywords are those of `exec`, and so are
        the errors.
        """
        return self._detach(argv, env, workdir=workdir, user=user, timeout_s=timeout_s, output_mib=output_mib)

    def logs(self, command: int | None = None, tail: int | None = None) -> Logs:
        """What its detached commands did and wrote, whoever has asked for them. As `Sandbox.logs`; raises BoxLost."""
        return self._logs(command, tail)

    def stats(self) -> BoxStats:
        """As `Sandbox.stats`."""
        return stats_of(self._of_keeper("stats"))

    def pause(self) -> None:
        """As `Sandbox.pause`, for everybody who has the box."""
        self._of_keeper("pause")

    def resume(self) -> None:
        """Lets a paused box go on, whoever has paused it."""
        self._of_keeper("resume")

    def close(self) -> None:
        """Ends what `start` has started here. The box stays. May be called again."""
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def keep(launch: Launch, name: str) -> Joined:
    """A new box that stays when this process ends. Raises as `Sandbox`, and SpecError for a name that is taken."""
    if len(launch.sources) > _MOST_SOURCES:
        raise SpecError("too many mounts", path="$.spec.files.mounts", need=f"at most {_MOST_SOURCES} in a kept box")
    sources = open_sources(launch.sources)
    try:
        return Joined(*ask("make", {"name": name, "launch": launch.to_tuple()}, sources, start=True))
    finally:
        for fd in sources:
            os.close(fd)
