"""A kept box with all that a box can do, for another process than its keeper."""

from __future__ import annotations

import os

from immure.engine.face import BoxFace
from immure.engine.files import Files
from immure.engine.keeper.client import ask
from immure.engine.keeper.joined import Joined
from immure.engine.keeper.tracing import KeptSession
from immure.engine.tracing import Wanted, check_traceable
from immure.errors import SpecError
from immure.plan.launch import Launch
from immure.runtimes.gvisor.trace import MAX_BYTES, MAX_EVENTS, Trace
from immure.runtimes.process.box import open_sources

_MOST_SOURCES = 250


class KeptBox(BoxFace):
    """A box that a keeper holds. Its commands are between us and the box."""

    def __init__(self, joined: Joined) -> None:
        super().__init__(joined.name)
        self._launch = joined.stem.launch
        self.joined = joined
        self.id, self.paused = joined.id, joined.paused
        self._stem, self._measured = joined.stem, joined.measured

    @property
    def files(self) -> Files:
        """The box's files."""
        return Files(self)

    def trace(self, wanted: Wanted, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> Trace:
        """What its Sentry sees from now on. Raises as `Sandbox.trace`."""
        check_traceable(self._launch.runtime, self.level.awarded)
        session = KeptSession(self.name, wanted)
        return Trace(session.listening, session, max_events=max_events, max_bytes=max_bytes)

    def close(self) -> None:
        """Ends the commands that were asked for here. The box stays."""
        self.joined.stem.leave()


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
