"""A kept box for an event loop: what `KeptSandbox` does, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Self

from immure.engine.aio_verbs import AsyncVerbs
from immure.engine.command import Argument, prepare_call
from immure.engine.keeper.answers import KeptInfo, infos, stats_of
from immure.engine.keeper.joined import Joined, join
from immure.engine.keeper.kept import KeptFace, keep
from immure.engine.log import Logs
from immure.engine.result import BoxStats
from immure.engine.tracing import wanted
from immure.runtimes.gvisor.trace import MAX_BYTES, MAX_EVENTS
from immure.runtimes.gvisor.trace.aio import AsyncTrace
from immure.spec.models import SandboxSpec


class AsyncKeptSandbox(KeptFace, AsyncVerbs):
    """As `KeptSandbox`, awaited. An asynchronous context manager: leaving it leaves the box as it is."""

    @classmethod
    async def make(
        cls,
        name: str,
        spec: SandboxSpec | None = None,
        *,
        preset: str | None = None,
        **keywords: Any,
    ) -> Self:
        """As `KeptSandbox.make`."""

        def made() -> Joined:
            return keep(prepare_call(spec, preset, keywords, name), name)

        return await cls._of(made)

    @classmethod
    async def attach(cls, name: str) -> Self:
        """As `KeptSandbox.attach`."""
        return await cls._of(partial(join, name))

    @classmethod
    async def _of(cls, found: Callable[[], Joined]) -> Self:
        asked = asyncio.ensure_future(asyncio.to_thread(found))
        try:
            return cls(await asyncio.shield(asked))
        except asyncio.CancelledError:
            # A box that is being made is made: it is found under its name.
            asked.add_done_callback(_let_go)
            raise

    @classmethod
    async def all(cls) -> tuple[KeptInfo, ...]:
        """As `KeptSandbox.all`."""
        return await asyncio.to_thread(infos)

    async def trace(
        self,
        points: Sequence[str] | None = None,
        *,
        context: Sequence[str] | None = None,
        optional: Sequence[str] = (),
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
    ) -> AsyncTrace:
        """As `Sandbox.trace`."""
        names = wanted(points, context, optional)
        return AsyncTrace(await asyncio.to_thread(self.open_trace, names, max_events, max_bytes))

    async def detach(
        self,
        argv: Sequence[Argument],
        *,
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
        user: int | None = None,
        timeout_s: float | None = None,
        output_mib: float | None = None,
    ) -> int:
        """As `KeptSandbox.detach`."""
        others = {"workdir": workdir, "user": user, "timeout_s": timeout_s, "output_mib": output_mib}
        return await asyncio.to_thread(self._detach, argv, env, **others)

    async def logs(self, command: int | None = None, tail: int | None = None) -> Logs:  # type: ignore[override]
        """As `KeptSandbox.logs`."""
        return await asyncio.to_thread(self._logs, command, tail)

    async def stats(self) -> BoxStats:  # type: ignore[override]
        """As `Sandbox.stats`."""
        return stats_of(await asyncio.to_thread(self._of_keeper, "stats"))

    async def pause(self) -> None:
        """As `KeptSandbox.pause`."""
        await asyncio.to_thread(self._of_keeper, "pause")

    async def resume(self) -> None:
        """As `KeptSandbox.resume`."""
        await asyncio.to_thread(self._of_keeper, "resume")

    async def close(self) -> None:
        """As `KeptSandbox.close`."""
        self._leave()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _let_go(asked: asyncio.Future[Joined]) -> None:
    if not asked.cancelled() and asked.exception() is None:
        asked.result().stem.leave()
