"""A box that stays, for an event loop: what `Sandbox` does, awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from immure.engine.aio_process import AsyncProcess
from immure.engine.aio_verbs import AsyncVerbs
from immure.engine.command import prepare_call
from immure.engine.face import LOOK_S
from immure.engine.migration import migrate_box
from immure.engine.readiness import readable
from immure.engine.session import Measured, measure
from immure.engine.snapshot import Snapshot, check_forks, take_snapshot
from immure.engine.spawners import replace, spawner_for
from immure.engine.tracing import open_trace, wanted
from immure.errors import BoxError, BoxLost
from immure.plan.launch import Launch
from immure.runtimes.base import Box
from immure.runtimes.guest.migration import Migration
from immure.runtimes.gvisor.trace import MAX_BYTES, MAX_EVENTS
from immure.runtimes.gvisor.trace.aio import AsyncTrace
from immure.runtimes.process.spawner import Spawner
from immure.runtimes.registry import open_box
from immure.spec.models import SandboxSpec

if TYPE_CHECKING:
    from immure.engine.denial_watch import DenialWatch

_CLOSING_S = 10.0


class AsyncSandbox(AsyncVerbs):
    """A box that stays until it is closed, for many commands. An asynchronous context manager, or awaited.

    Its keywords are those of `Sandbox`; what is wrong with them is told when it is made. Cancelling a task ends the
    command that it waits for. It works with asyncio's loops and uvloop's, in the loop in which it was made.
    """

    _box: Box
    _processes: tuple[AsyncProcess, ...] | None = None

    def __init__(
        self,
        spec: SandboxSpec | None = None,
        *,
        preset: str | None = None,
        name: str = "immure",
        log_mib: float = 1,
        **keywords: Any,
    ) -> None:
        self._begin(partial(prepare_call, spec, preset, keywords, name), name, log_mib)

    @classmethod
    def restore(cls, snapshot: Snapshot, *, log_mib: float = 1) -> Self:
        """As `Sandbox.restore`. It is made by `async with` or `await`, like any."""
        box = cls.__new__(cls)
        box._begin(snapshot.launch, snapshot.name, log_mib)
        box._restored = snapshot
        return box

    def _begin(self, prepare: Callable[[], Launch], name: str, log_mib: float) -> None:
        super().__init__(name, log_mib=log_mib)
        self._prepare = prepare
        self._closing = asyncio.Lock()

    async def open(self) -> AsyncSandbox:
        """Makes the box. Raises as `Sandbox` does. `async with` and `await` do this."""
        self._starting = True
        # On a thread: a first machine of its kind is packed and booted for this.
        spawner = await asyncio.to_thread(self._begin_spawner)
        try:
            self._box, self._measured = await self._make(spawner)
        except BoxLost:
            if not spawner.gone():
                raise
            # The spawner was killed under it: another one is asked, once.
            spawner = await asyncio.to_thread(replace, self._launch, spawner)
            self._box, self._measured = await self._make(spawner)
        self._stem = self._box
        return self

    def _begin_spawner(self) -> Spawner:
        self._launch = self._prepare()
        return spawner_for(self._launch)

    @property
    def processes(self) -> tuple[AsyncProcess, ...]:
        """As `Sandbox.processes`."""
        if self._processes is None:
            self._processes = tuple(self._adopted(AsyncProcess, self._box))
        return self._processes

    async def _make(self, spawner: Spawner) -> tuple[Box, Measured]:
        adopts = self._restored.standing if self._restored is not None else None
        box = open_box(spawner, self._launch, in_loop=True, adopts=adopts)
        try:
            await readable(box.owner.fileno())
            if self._launch.carrier:
                # It asks a kernel of the box's own, which takes a while.
                return box, await asyncio.to_thread(measure, box)
            return box, measure(box)
        except BaseException:
            # Cancelled, or refused: a few milliseconds, after which nothing of it is left.
            box.close()
            raise

    async def trace(
        self,
        points: Sequence[str] | None = None,
        *,
        context: Sequence[str] | None = None,
        optional: Sequence[str] = (),
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> AsyncTrace:
        """What the Sentry of an L3 box sees from now on, as a stream of events. As `Sandbox.trace`."""
        self._check_usable()
        names = wanted(points, context, optional)
        opening = asyncio.to_thread(open_trace, self._box, self.level.awarded, names, max_events, max_bytes)
        return AsyncTrace(await opening)

    async def pause(self) -> None:
        """As `Sandbox.pause`."""
        self._pause(True)
        try:
            async with asyncio.timeout(self._pausing_s()):
                while self._moving():
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise self._not_at_rest() from None

    async def resume(self) -> None:
        """Lets a paused box go on."""
        self._pause(False)

    async def snapshot(self) -> Snapshot:
        """As `Sandbox.snapshot`."""
        self._check_usable()
        taken = asyncio.ensure_future(asyncio.to_thread(take_snapshot, self._box, self._base_launch(), self.name))
        try:
            return await asyncio.shield(taken)
        except asyncio.CancelledError:
            # It can't be stopped half-way; nobody is left to want it.
            taken.add_done_callback(_forget)
            raise

    async def migrate(self) -> Migration:
        """As `Sandbox.migrate`."""
        self._check_usable()
        moved, self._measured = await asyncio.shield(asyncio.to_thread(migrate_box, self._box))
        return moved

    async def fork(self, count: int = 1) -> list[AsyncSandbox]:
        """As `Sandbox.fork`."""
        check_forks(count)
        made: list[AsyncSandbox] = []
        with await self.snapshot() as snapshot:
            try:
                for _ in range(count):
                    made.append(await AsyncSandbox.restore(snapshot).open())
            except BaseException:
                for box in made:
                    await box.close()
                raise
        return made

    def _watch_denials(self) -> DenialWatch:
        from immure.engine.denial_watch import watch_denials

        return watch_denials(self._box, self.level.awarded)

    async def close(self) -> None:
        """Ends the box and everything in it, and waits until it is gone. May be called again.

        As `Sandbox.close`, with what is brought back of a machine's mounts.
        """
        if self._owner != os.getpid() or not hasattr(self, "_box"):
            return
        async with self._closing:
            if self._box.owner.fileno() < 0:
                return
            try:
                if self._launch.changes and self._box.alive():
                    from immure.engine.changes import bring_back

                    await asyncio.to_thread(bring_back, self._box)
            finally:
                await self._end(self._box)

    @staticmethod
    async def _end(box: Box) -> None:
        try:
            while box.ended is None:
                box.kill()
                async with asyncio.timeout(_CLOSING_S):
                    await readable(box.owner.fileno())
                box.hear_owner()
        except (BoxLost, TimeoutError):
            # The spawner is gone or stuck; what is left to do is done below.
            pass
        finally:
            box.close()

    def _check_usable(self) -> None:
        self._check_owner()
        if not hasattr(self, "_stem"):
            raise BoxError("the box is not made yet", need="one that was opened", hint="async with, await or open() it")
        super()._check_usable()

    def __await__(self) -> Generator[Any, Any, AsyncSandbox]:
        return self.open().__await__()

    async def __aenter__(self) -> AsyncSandbox:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        # A cancelled task's box goes too, and is waited for.
        await asyncio.shield(self.close())


def _forget(taken: asyncio.Future[Snapshot]) -> None:
    if not taken.cancelled() and taken.exception() is None:
        taken.result().close()
