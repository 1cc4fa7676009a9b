"""Waiting for descriptors in an event loop, in the place of `select.poll`."""

from __future__ import annotations

import asyncio
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
                while not (events := self._poll.poll(0)):
                    self._some.clear()
                    await self._some.wait()
                return events
        except TimeoutError:
            return []

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


async def writable(fd: int) -> None:
    """Waits until there is room to write, or the other end is gone."""
    await _ready(fd, _OUT)


async def _ready(fd: int, mask: int) -> None:
    readiness = Readiness()
    readiness.register(fd, mask)
    try:
        await readiness.poll(None)
    finally:
        readiness.close()
