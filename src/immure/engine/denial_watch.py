"""Has a box's Sentry tell what it refuses while a command runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from immure.engine.denials import Denials
from immure.engine.tracing import Wanted, check_traceable, open_trace
from immure.errors import ImmureError
from immure.runtimes.gvisor.trace import MAX_BYTES, MAX_EVENTS

if TYPE_CHECKING:
    from immure.engine.result import Denial
    from immure.plan.launch import Launch
    from immure.runtimes.base import Box
    from immure.runtimes.gvisor.trace import Trace


#: What is to be traced for it.
DENIALS = Wanted(denials=True)


def watch_denials(box: Box, level: str) -> DenialWatch:
    """Raises RuntimeUnavailable for a box without a Sentry, and BoxError for one that is traced already."""
    return DenialWatch(open_trace(box, level, DENIALS, MAX_EVENTS, MAX_BYTES))


class DenialWatch:
    """Begun before a command, and finished after it. It is the box's one trace for so long."""

    def __init__(self, trace: Trace) -> None:
        """`trace` is of what DENIALS wants, and is this one's now."""
        self._trace = trace
        self._denials = Denials()
        self._failure: ImmureError | None = None
        self._thread = threading.Thread(target=self._follow, name="immure-denials", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        try:
            for event in self._trace:
                self._denials.take(event)
        except ImmureError as error:
            self._failure = error

    def finish(self) -> tuple[Denial, ...]:
        """What was refused until now. Raises what the trace came upon."""
        try:
            self._trace.finish()
            self._thread.join()
        finally:
            self.close()
        if self._failure is not None:
            raise self._failure
        return self._denials.found()

    def close(self) -> None:
        """Ends it, whatever was refused."""
        self._trace.close()
        self._thread.join()


class WatchedOnce:
    """A watch beside the one command of a box: `found` has what was refused once that has ended."""

    def __init__(self, launch: Launch) -> None:
        """Raises RuntimeUnavailable where its box has no Sentry."""
        check_traceable(launch.runtime, launch.level)
        self.found: tuple[Denial, ...] = ()

    def begin(self, box: Box) -> Callable[[], None]:
        """Gives what is to be called when the command has ended."""
        watch = watch_denials(box, box.launch.level)

        def end() -> None:
            self.found = watch.finish()

        return end
