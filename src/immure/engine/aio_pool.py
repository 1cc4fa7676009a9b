"""Boxes that are ready before anybody asks for one, for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from immure.engine.aio import AsyncSandbox
from immure.engine.pool import Pool, PooledSandbox, PoolStats
from immure.errors import BoxLost
from immure.spec.models import SandboxSpec


class AsyncPooledSandbox(AsyncSandbox):
    """A box of a pool. Closing it is no wait: the pool ends it, and makes another one in its place."""

    def __init__(self, box: PooledSandbox) -> None:
        # It is made already: this is another face of it.
        self.__dict__.update(vars(box))
        self._inner = box

    async def open(self) -> AsyncSandbox:
        """Nothing: it is open."""
        return self

    async def close(self) -> None:
        """Gives it to the pool, which ends it. No box is ever used twice."""
        self._retired = True
        self._inner.close()

    _retired = False

    def _check_usable(self) -> None:
        super()._check_usable()
        if self._retired:
            raise BoxLost("the box is closed", need="a box in use", hint="claim another one from the pool")


class AsyncPool:
    """As `Pool`, awaited. An asynchronous context manager, or awaited."""

    _pool: Pool

    def __init__(
        self,
        spec: SandboxSpec | None = None,
        *,
        size: int = 4,
        preset: str | None = None,
        name: str = "immure",
        **keywords: Any,
    ) -> None:
        self._call = {"spec": spec, "size": size, "preset": preset, "name": name, **keywords}

    async def open(self) -> AsyncPool:
        """Makes the first box. Raises as `Sandbox`. `async with` and `await` do this."""
        self._pool = await asyncio.to_thread(Pool, **self._call)  # type: ignore[arg-type]
        return self

    async def claim(self) -> AsyncPooledSandbox:
        """A box that nobody has used. Where none is ready, it is made now. Raises as `Sandbox`."""
        return AsyncPooledSandbox(self._pool.claim_ready() or await asyncio.to_thread(self._pool.claim))

    def stats(self) -> PoolStats:
        """What it has done until now, and how many boxes are ready."""
        return self._pool.stats()

    async def close(self) -> None:
        """Ends every box, those that were claimed too, and waits until they are gone. May be called again."""
        await asyncio.to_thread(self._pool.close)

    def __await__(self) -> Generator[Any, Any, AsyncPool]:
        return self.open().__await__()

    async def __aenter__(self) -> AsyncPool:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.close())
