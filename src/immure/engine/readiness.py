"""Waiting for descriptors in an event loop, in the place of `select.poll`."""

from __future__ import annotations

import asyncio
import os
import select

from immure.runtimes.process.attend import Attendance

_IN, _OUT = select.POLLIN, select.POLLOUT


class Readiness:
    """Which of the registered descriptors are ready. Works with any loop that has add_reader, uvloop's too."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._masks: dict[int, int] = {}
        self._some = asyncio.Event()
        # A loop's word may be from before the last read. What this says is true now.
        self._poll = select.poll()
        self._called_off = False

    def register(self, fd: int, eventmask: int = _IN, /) -> None:
        """Waits for it from now on."""
        self._masks[fd] = eventmask
        self._poll.register(fd, eventmask)
        if eventmask & _IN:
            self._loop.add_reader(fd, self._some.set)
        if eventmask & _OUT:
            self._loop.add_writer(fd, self._some.set)

    def unregister(self, fd: int, /) -> None:
        """And no longer."""
        mask = self._masks.pop(fd)
        self._poll.unregister(fd)
        if mask & _IN:
            self._loop.remove_reader(fd)
        if mask & _OUT:
            self._loop.remove_writer(fd)

    async def poll(self, timeout_ms: int | None) -> list[tuple[int, int]]:
        """What is ready, after at most so long; nothing then."""
        try:
            async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
                while not (events := self._poll.poll(0)) and not self._called_off:
                    self._some.clear()
                    await self._some.wait()
                return events
        except TimeoutError:
            return []

    def call_off(self) -> None:
        """Whoever waits gets nothing, now."""
        self._called_off = True
        self._some.set()

    def close(self) -> None:
        """Waits for nothing any more."""
        for fd in list(self._masks):
            self.unregister(fd)


async def drive(attendance: Attendance) -> None:
    """What `Attendance.run` does, awaited."""
    readiness = Readiness()
    try:
        attendance.register(readiness)
        while not attendance.finished():
            for fd, event in await readiness.poll(attendance.wait_ms()):
                attendance.handle(readiness, fd, event)
            attendance.check_time()
    finally:
        readiness.close()


async def readable(fd: int) -> None:
    """Waits until there is something to read, or the other end is gone."""
    await _ready(fd, _IN)


async def _ready(fd: int, mask: int) -> None:
    readiness = Readiness()
    readiness.register(fd, mask)
    try:
        await readiness.poll(None)
    finally:
        readiness.close()


class Watched:
    """A descriptor for one task at a time, which another task may close under it.

    A loop says nothing more of a descriptor once it is closed, and its number may soon be another's.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._closed = False
        self._waiting: Readiness | None = None

    async def readable(self) -> bool:
        """Waits as `readable`. False where it is closed, or was meanwhile."""
        return await self._ready(_IN)

    async def writable(self) -> bool:
        """Waits until there is room to write, or the other end is gone. False where it was closed."""
        return await self._ready(_OUT)

    async def _ready(self, mask: int) -> bool:
        if self._closed:
            return False
        self._waiting = Readiness()
        try:
            self._waiting.register(self.fd, mask)
            await self._waiting.poll(None)
        finally:
            self._waiting.close()
            self._waiting = None
            if self._closed:
                os.close(self.fd)
        return not self._closed

    @property
    def closed(self) -> bool:
        """Whether somebody has closed it."""
        return self._closed

    def close(self) -> None:
        """Closes it. A task that waits for it is told, and closes it on its way out."""
        if self._closed:
            return
        self._closed = True
        if self._waiting is not None:
            self._waiting.call_off()
        else:
            os.close(self.fd)
