"""The trace session of a box's Sentry: a socket in the outer box, and what `runsc trace` does there."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import closing

from immure.errors import BoxError, BoxLost, SetupFailed
from immure.plan.gvisor import CONTAINER, RUNSC, RUNSC_ROOT
from immure.runtimes.guest.connections import socket_of
from immure.runtimes.guest.outer import STEP_S, attended, carrier_request
from immure.runtimes.gvisor.box import GVisorBox
from immure.runtimes.gvisor.trace.session import SESSION_NAME, Offer, make_session, read_dropped, read_metadata
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.course import Sink
from immure.runtimes.process.spawner import memory_file, pair, receive

_TOLD_BYTES = 4 << 20


def read_offer(box: GVisorBox) -> Offer:
    """What the runsc of this box can report. Raises RuntimeUnavailable where that is nothing, and BoxError."""
    return read_metadata(_runsc(box, "trace", "metadata"))


class SentrySession:
    """Has a box's Sentry report to `listening`, which is its maker's to serve. One at a time for each box.

    Raises BoxError where there is another, or the box is gone, and SpecError for fields that there are not.
    """

    def __init__(
        self, box: GVisorBox, points: Sequence[str], offer: Offer, *, context: Sequence[str], optional: Sequence[str]
    ) -> None:
        self._box = box
        self._begun = self._over = False
        place = f"/tmp/trace-{secrets.token_hex(4)}"
        self._config = make_session(points, offer, place, context=context, optional=optional)
        if not box.tracing.acquire(blocking=False):
            raise BoxError(
                "the box is being traced already", need="one trace at a time", hint="close the other one, or wait"
            )
        try:
            self._place = _Place(box, place)
        except BaseException:
            box.tracing.release()
            raise
        self.listening = self._place.listening

    def begin(self) -> None:
        """Has the Sentry connect to who serves the socket, and report. Raises BoxError."""
        self._begun = True
        try:
            _runsc(self._box, "trace", "create", "--config=/proc/self/fd/0", CONTAINER, stdin=self._config)
        finally:
            # The connection is there, or will never be.
            self._place.close()

    def end(self) -> int:
        """Has it report no more, and gives how many events it has dropped in all; harmless after the first time.

        Raises BoxError where the box has ended.
        """
        if self._over:
            return 0
        self._over = True
        try:
            self._place.close()
            if not self._begun:
                return 0
            try:
                return read_dropped(_runsc(self._box, "trace", "list", CONTAINER))
            finally:
                _runsc(self._box, "trace", "delete", f"--name={SESSION_NAME}", CONTAINER)
        finally:
            self._box.tracing.release()


class _Place:
    """A socket that listens in the outer box, under a name that is gone once this is closed."""

    def __init__(self, box: GVisorBox, path: str) -> None:
        self._box, self._request = box.outer, carrier_request(box.launch, ("listen", path))
        self._ours, theirs = pair()
        said, errors = os.pipe2(os.O_CLOEXEC)
        self._stdio = Stdio((None, theirs.fileno(), errors), [errors], [Sink(said, None)])
        try:
            with closing(theirs):
                asker = box.outer.start(self._request.payload(), self._stdio.theirs, builtin=True)
                self._stdio.given()
            self._attendance = Attendance(box.outer, asker, self._stdio, self._request)
        except BaseException:
            self._ours.close()
            self._stdio.done()
            raise
        try:
            self.listening = self._received()
        except BaseException:
            self.close()
            raise

    def _received(self) -> socket.socket:
        self._ours.settimeout(STEP_S)
        try:
            _, fds = receive(self._ours)
        except TimeoutError:
            fds = []
        if fds:
            return socket_of(fds)
        self.close()
        said = bytes(self._stdio.sinks[0].data).decode(errors="replace").strip()
        raise SetupFailed("no Sentry's events can be heard in the box", step="listen", have=said or "no answer")

    def close(self) -> None:
        """Takes the name away. Harmless after the first time."""
        if self._ours.fileno() < 0:
            return
        self._ours.close()
        try:
            self._attendance.see_through(self._stdio, None)
        except BoxLost:
            # And the name with it.
            self._attendance.asker.close()
        else:
            self._box.give_back(self._attendance.asker)


def _runsc(box: GVisorBox, *words: str, stdin: bytes | None = None) -> str:
    """What runsc prints in the outer box. Raises SetupFailed with what it says where it fails, and BoxLost."""
    request = carrier_request(box.launch, (RUNSC, RUNSC_ROOT, *words))
    request.output_bytes = _TOLD_BYTES
    first = memory_file(stdin) if stdin is not None else None
    try:
        attendance = attended(box.outer, request, first)
    finally:
        if first is not None:
            os.close(first)
    told, said = (bytes(sink.data).decode(errors="replace") for sink in attendance.sinks)
    seen = attendance.exit
    if seen is None or seen.errno or seen.status or attendance.flooded:
        raise SetupFailed(
            "gVisor did not do what a trace needs",
            step=f"runsc {' '.join(words[:2])}",
            errno=seen.errno if seen is not None else 0,
            have=said.strip().rpartition("\n")[2][:1000] or "no answer in time",
        )
    return told
