"""A box that stays, for many commands. Blocking; no event loop is ever run."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Self

from immure.engine.command import prepare_call
from immure.engine.face import LOOK_S
from immure.engine.migration import migrate_box
from immure.engine.process import Process
from immure.engine.session import Measured, measure
from immure.engine.snapshot import Origin, Snapshot, begin_fork, check_forks, take_snapshot
from immure.engine.spawners import replace, spawner_for
from immure.engine.tracing import open_trace, wanted
from immure.engine.verbs import Verbs
from immure.errors import BoxLost
from immure.plan.launch import Launch
from immure.runtimes.base import Box
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.migration import Migration
from immure.runtimes.gvisor.trace import MAX_BYTES, MAX_EVENTS, Trace
from immure.runtimes.process.spawner import Spawner
from immure.runtimes.registry import open_box
from immure.spec.models import SandboxSpec

if TYPE_CHECKING:
    from immure.engine.denial_watch import DenialWatch


class Sandbox(Verbs):
    """A box that stays until it is closed, for many commands. A context manager.

    Its keywords are those of `run`, and `log_mib`, which is what `logs` keeps at most. A box belongs to the process
    that made it: a forked child can't use it.
    """

    _box: Box
    _processes: tuple[Process, ...] | None = None

    def __init__(
        self,
        spec: SandboxSpec | None = None,
        *,
        preset: str | None = None,
        name: str = "immure",
        log_mib: float = 1,
        **keywords: Any,
    ) -> None:
        self._begin(prepare_call(spec, preset, keywords, name), name, log_mib)

    @classmethod
    def restore(cls, snapshot: Snapshot, *, log_mib: float = 1) -> Self:
        """A box that goes on from where another stood. It is measured as any is.

        What ran there runs here: `processes` has it. Raises RuntimeUnavailable where the snapshot is of another
        version, machine, runsc or image, and as `Sandbox` does.
        """
        return cls._going_on(snapshot, log_mib)

    @classmethod
    def _going_on(cls, origin: Origin, log_mib: float) -> Self:
        box = cls.__new__(cls)
        box._begin(origin.launch(), origin.name, log_mib, restored=origin)
        return box

    def _begin(
        self,
        launch: Launch,
        name: str,
        log_mib: float,
        sources: list[int] | None = None,
        restored: Origin | None = None,
    ) -> None:
        """Makes the box. `sources` are descriptors of the mounts' sources, where not their paths are to be opened."""
        super().__init__(name, log_mib=log_mib)
        self._launch = launch
        self._closing = threading.Lock()
        self._restored = restored
        adopts = restored.standing if restored is not None else None
        self._box, self._measured = _make_box(launch, sources, adopts)
        self._stem = self._box

    @property
    def processes(self) -> tuple[Process, ...]:
        """The commands that were under way where a restored box was copied, in the order in which they were started.

        Their streams begin anew: what was written and not read before the copy is there, what had been read is not.
        """
        if self._processes is None:
            self._processes = tuple(self._adopted(Process, self._box))
        return self._processes

    def trace(
        self,
        points: Sequence[str] | None = None,
        *,
        context: Sequence[str] | None = None,
        optional: Sequence[str] = (),
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> Trace:
        """What the Sentry of an L3 box sees from now on, as a stream of events. One at a time for each box.

        `points` are trace points such as `sentry/execve` and `syscall/openat/exit`, with `*`, `?` and `[…]` for
        anything within one part; without any, processes and calls that reach for something. `context` are fields of who
        and when; without any, those that no command chooses. `optional` are fields that some points have beside. At
        most `max_events` events are kept unread, and not much more than `max_bytes` of what they came as.

        Raises RuntimeUnavailable where the box has no Sentry or its gVisor reports nothing, SpecError for a point or
        field that this gVisor lacks, and BoxError where the box is traced already or has ended.
        """
        self._check_usable()
        names = wanted(points, context, optional)
        return open_trace(self._box, self.level.awarded, names, max_events, max_bytes)

    def pause(self) -> None:
        """Stops everything in the box, at once and whatever it does, until `resume`. Comes back when it has stopped.

        Time goes on: a command's timeout ends it all the same. What runs sees nothing of it but a signal to go on
        (SIGCONT) at its end. Raises RuntimeUnavailable for a box without a pid namespace, BoxError where something does
        not stop within 2 s (20 s in a virtual machine), and BoxLost.
        """
        self._pause(True)
        until = monotonic() + self._pausing_s()
        while self._moving():
            if monotonic() > until:
                raise self._not_at_rest()
            sleep(LOOK_S)

    def resume(self) -> None:
        """Lets a paused box go on."""
        self._pause(False)

    def snapshot(self) -> Snapshot:
        """The box as it stands, with all that runs in it, which goes on. A paused one is copied as it is paused.

        Only a box with a kernel of its own (gVisor, a virtual machine) can be copied. What is under way to a command's
        input is not in it. Copies have the same secrets, and what a program drew at random before is the same in each
        of them. Raises RuntimeUnavailable, BoxLost, and SetupFailed where it can't be written.
        """
        self._check_usable()
        return take_snapshot(self._box, self._base_launch(), self.name)

    def fork(self, count: int = 1) -> list[Sandbox]:
        """So many boxes that go on from here, beside this one. Raises as `snapshot` and `restore`."""
        check_forks(count)
        made: list[Sandbox] = []
        self._check_usable()
        with begin_fork(self._box, self._base_launch(), self.name) as origin:
            try:
                for _ in range(count):
                    made.append(Sandbox._going_on(origin, 1))
            except BaseException:
                for box in made:
                    box.close()
                raise
        return made

    def migrate(self) -> Migration:
        """Moves a virtual machine to another process of this host, with all that runs in it and is under way. It is
        measured anew there. Gives for how long it stood still.

        Raises RuntimeUnavailable for any other box, SetupFailed where it stays where it was, LevelNotReached, BoxLost.
        """
        self._check_usable()
        moved, self._measured = migrate_box(self._box)
        return moved

    def _watch_denials(self) -> DenialWatch:
        from immure.engine.denial_watch import watch_denials

        return watch_denials(self._box, self.level.awarded)

    def close(self) -> None:
        """Ends the box and everything in it, and waits until it is gone. May be called again.

        What a machine has changed in the mounts that it writes to is brought back. Raises FileError where it can't be.
        """
        if self._owner != os.getpid():
            return
        with self._closing:
            try:
                if self._launch.changes and not self._box.left and self._box.alive():
                    from immure.engine.changes import bring_back

                    bring_back(self._box)
            finally:
                self._box.close()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _make_box(launch: Launch, sources: list[int] | None, adopts: Adopts | None) -> tuple[Box, Measured]:
    spawner = spawner_for(launch)
    try:
        return _measured_box(spawner, launch, sources, adopts)
    except BoxLost:
        if not spawner.gone():
            raise
        # The spawner was killed under it: another one is asked, once.
        return _measured_box(replace(launch, spawner), launch, sources, adopts)


def _measured_box(
    spawner: Spawner, launch: Launch, sources: list[int] | None, adopts: Adopts | None
) -> tuple[Box, Measured]:
    box = open_box(spawner, launch, sources=sources, adopts=adopts)
    try:
        return box, measure(box)
    except BaseException:
        box.close()
        raise
