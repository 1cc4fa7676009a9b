"""The events of a box's Sentries, as they come: for threads."""

from __future__ import annotations

import os
import socket
import time
import weakref
from collections.abc import Callable, Iterator

from immure.errors import SpecError
from immure.policy.seccomp.abi import find_abi
from immure.policy.seccomp.syscalls import name_of
from immure.runtimes.gvisor.trace.events import TraceEvent
from immure.runtimes.gvisor.trace.intake import Intake, TraceCounts
from immure.runtimes.gvisor.trace.listener import Listener, Session, Shared

#: What is kept unread where nobody says how much.
MAX_EVENTS, MAX_BYTES = 65_536, 16 << 20


class Trace:
    """Events as they come: an iterator, and a context manager that ends it. Threads may share it.

    At most `max_events` are kept unread, and not much more than `max_bytes` of what they came as. Then the box's calls
    wait, for a moment, and what there is no room for is dropped, which `counts` and events of the point `trace/dropped`
    tell. Its box's end ends it, after what had come.
    """

    def __init__(
        self,
        listening: socket.socket,
        session: Session | None = None,
        *,
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        machine: str | None = None,
    ) -> None:
        """Sentries connect to `listening`, which it owns from now on. With a session that is one, as soon as it has
        begun; without, one after the other or a few at once, until `finish`.

        Raises SetupFailed for a socket that does not listen, SpecError for bounds that allow nothing, and as `begin`.
        """
        try:
            abi = find_abi(machine or os.uname().machine)
            _check_bounds(max_events, max_bytes)
            intake = Intake(lambda number: name_of(abi, number), max_events=max_events, max_bytes=max_bytes)
            self._shared = Shared(intake)
            self._listener = Listener(listening, self._shared, session)
        except BaseException:
            listening.close()
            if session is not None:
                session.end()
            raise
        # When it is forgotten. At the interpreter's end, too, where nobody waits for the rest.
        self._abandon = weakref.finalize(self, self._listener.abandon)
        if session is not None:
            try:
                session.begin()
            except BaseException:
                self.close()
                raise
            self._listener.leave_alone()

    @property
    def counts(self) -> TraceCounts:
        """How much came, and how much was dropped, so far."""
        with self._shared.lock:
            return self._shared.intake.counts

    def read(self, timeout_s: float | None = None) -> TraceEvent | None:
        """The next event; None where none comes in time, or none will come: then `is_over`."""
        end = None if timeout_s is None else time.monotonic() + timeout_s
        shared = self._shared
        with shared.lock:
            while True:
                event = self._take()
                if event is not None or shared.ended:
                    return event
                if not shared.more.wait(None if end is None else max(0.0, end - time.monotonic())):
                    return self._take()

    @property
    def is_over(self) -> bool:
        """Whether everything was read, and nothing more will come."""
        with self._shared.lock:
            return self._shared.ended and not self._shared.intake.holds

    def _take(self) -> TraceEvent | None:
        """The next event that is there. The lock is held."""
        shared = self._shared
        event = shared.intake.take()
        if event is None:
            if shared.ended and shared.failure is not None:
                raise shared.failure
        elif shared.intake.has_much_room:
            self._listener.room_again()
        return event

    def __iter__(self) -> Iterator[TraceEvent]:
        return self

    def __next__(self) -> TraceEvent:
        event = self.read()
        if event is None:
            raise StopIteration
        return event

    def finish(self) -> None:
        """Asks for no more: after the last event that has come by now, iterating ends."""
        self._listener.finish()

    def close(self) -> None:
        """Ends it, under whoever waits for the next event too. What was not read is lost."""
        try:
            self._listener.close()
        finally:
            with self._shared.lock:
                self._shared.intake.forget()

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take_or_call(self, wake: Callable[[], None]) -> tuple[TraceEvent | None, bool]:
        """The next event, if there is one, and whether it is over; else has `wake` called when there may be more."""
        with self._shared.lock:
            event = self._take()
            over = event is None and self._shared.ended
            if event is None and not over:
                self._shared.call_once(wake)
            return event, over

    def call_no_more(self, wake: Callable[[], None]) -> None:
        """Forgets it, if it was not called."""
        self._shared.call_no_more(wake)


def _check_bounds(max_events: int, max_bytes: int) -> None:
    for path, value in (("max_events", max_events), ("max_bytes", max_bytes)):
        if value < 1:
            raise SpecError("nothing could be kept", path=path, need="1 or more", have=str(value))
