"""The events of a box's Sentries, as they come: for an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from immure.runtimes.gvisor.trace.events import TraceEvent
from immure.runtimes.gvisor.trace.intake import TraceCounts
from immure.runtimes.gvisor.trace.stream import Trace

#: Events between which other tasks of a loop have their turn.
_TURN = 64


class AsyncTrace:
    """`Trace`, awaited: an asynchronous iterator, and a context manager that ends it."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._since_turn = 0

    @property
    def counts(self) -> TraceCounts:
        """As `Trace.counts`."""
        return self._trace.counts

    def __aiter__(self) -> AsyncIterator[TraceEvent]:
        return self

    async def __anext__(self) -> TraceEvent:
        self._since_turn += 1
        if self._since_turn >= _TURN:
            # A stream that always has something would keep the loop to itself.
            self._since_turn = 0
            await asyncio.sleep(0)
        event = await _next_of(self._trace)
        if event is None:
            raise StopAsyncIteration
        return event

    def finish(self) -> None:
        """As `Trace.finish`."""
        self._trace.finish()

    async def close(self) -> None:
        """Ends it."""
        await asyncio.to_thread(self._trace.close)

    async def __aenter__(self) -> AsyncTrace:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _next_of(trace: Trace) -> TraceEvent | None:
    """The next event; None where none will come. Giving up waiting loses nothing."""
    loop = asyncio.get_running_loop()
    while True:
        waiter: asyncio.Future[None] = loop.create_future()
        wake = partial(_wake, loop, waiter)
        event, over = trace.take_or_call(wake)
        if event is not None or over:
            return event
        try:
            await waiter
        finally:
            trace.call_no_more(wake)


def _wake(loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(_settle, waiter)
    except RuntimeError:
        # The loop is closed: nobody waits any more.
        pass


def _settle(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
