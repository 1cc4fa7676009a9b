"""What moves a channel's bytes, and those of whoever is joined to it. It waits for nothing itself: its one descriptor
is ready when there is something to do, for a thread (`blocking.py`) or an event loop (`aio.py`).
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable

from immure.channel.frames import FromGuest
from immure.channel.host import Host
from immure.channel.limits import HOST_FRAME_BYTES
from immure.errors import BoxError, BoxLost

IN, OUT = select.EPOLLIN, select.EPOLLOUT
#: The other end is gone.
GONE = select.EPOLLHUP | select.EPOLLERR
#: Nothing more is taken to be sent while as much waits.
FULL_BYTES = 256 * 1024
_READ_BYTES = 256 * 1024

#: Called with what is ready of a descriptor.
Ready = Callable[[int], None]


def close_all(fds: Iterable[int]) -> None:
    """Closes them, whoever had them."""
    for fd in fds:
        os.close(fd)


class Pump:
    """Owns both descriptors of a channel, which may be made later and are -1 until `join`. `hear` is given what the
    guest says, `lost` why there is no more of it.

    Other threads use it, and what is joined to it, under `lock`.
    """

    def __init__(
        self,
        host: Host,
        receives: int,
        sends: int,
        hear: Callable[[FromGuest], None],
        lost: Callable[[BoxError], None],
    ) -> None:
        self.host = host
        self.lock = threading.RLock()
        self._hear, self._lost = hear, lost
        self._receives = self._sends = -1
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._masks: dict[int, int] = {}
        self._unsent = bytearray()
        #: Made once: each would be pages from the kernel and back.
        self._buffer = memoryview(bytearray(_READ_BYTES))
        #: What goes on when there is room again, and what does at the next step in any case.
        self._waiting: list[Callable[[], None]] = []
        self._soon: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.is_over = False
        self.watch(self._wake, IN, self._clear_wake)
        if receives >= 0:
            self.join(receives, sends)

    def join(self, receives: int, sends: int, heard: bytes = b"") -> None:
        """What is said goes over these two from now on, which become its own; where it is over they are closed.

        `heard` was read of them before.
        """
        with self.lock:
            if self.is_over:
                os.close(receives)
                os.close(sends)
                return
            self._receives, self._sends = receives, sends
            for fd in (receives, sends):
                os.set_blocking(fd, False)
            self.watch(receives, IN, self._receive)
            # Without anything to send, whether the other end is gone.
            self.watch(sends, 0, self._may_send)
            if heard:
                self._take(heard)
            self.flush()

    def leave(self) -> tuple[int, ...]:
        """Gives up its descriptors, which are the caller's then. Nothing may be under way: what is said waits."""
        with self.lock:
            left = tuple({self._receives, self._sends} - {-1})
            for fd in left:
                self.unwatch(fd)
            self._receives = self._sends = -1
            return left

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._epoll.fileno()

    def step(self, timeout_s: float = 0) -> None:
        """Does what there is to do, after at most so long a wait for it."""
        if timeout_s:
            self._epoll.poll(timeout_s)
        with self.lock:
            # Asked under the lock, and each looked up before anything is done: a number may be somebody else's soon.
            due = [(fd, self._ready.get(fd), event) for fd, event in self._epoll.poll(0)]
            for fd, ready, event in due:
                if ready is not None and self._ready.get(fd) is ready:
                    ready(event)
            for _ in range(len(self._soon)):
                self._soon.popleft()()
            self.flush()
            if self._soon:
                self.wake()

    def wake(self) -> None:
        """Has somebody who waits look again."""
        with self.lock:
            if not self.is_closed:
                os.eventfd_write(self._wake, 1)

    # For those that are joined to it.

    def watch(self, fd: int, mask: int, ready: Ready) -> bool:
        """Calls `ready` when the descriptor is, or its other end is gone. False for one of a kind that always is."""
        try:
            self._epoll.register(fd, mask)
        except PermissionError:
            return False
        self._ready[fd] = ready
        self._masks[fd] = mask
        return True

    def change(self, fd: int, mask: int) -> None:
        """Waits for something else of it."""
        if self._masks[fd] != mask:
            self._masks[fd] = mask
            self._epoll.modify(fd, mask)

    def unwatch(self, fd: int) -> None:
        """No longer; before it is closed."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def soon(self, work: Callable[[], None]) -> None:
        """Calls it at the next step."""
        self._soon.append(work)
        self.wake()

    def has_room(self) -> bool:
        """Whether anything more is to be sent now."""
        return len(self._unsent) < FULL_BYTES

    def takes_commands(self) -> bool:
        """Whether a command is to be asked for: not where the guest has not taken what was sent before."""
        return len(self._unsent) <= HOST_FRAME_BYTES

    def when_room(self, work: Callable[[], None]) -> None:
        """Calls it when there is room again."""
        self._waiting.append(work)

    def flush(self) -> None:
        """Sends what has been said, as far as it goes."""
        if self.is_over:
            return
        self._unsent += self.host.data_to_send()
        while self._unsent and self._sends >= 0:
            try:
                del self._unsent[: os.write(self._sends, self._unsent)]
            except BlockingIOError:
                break
            except OSError:
                # What the guest said before it went is still to be read; its end comes there.
                self._unsent.clear()
                self.unwatch(self._sends)
                return
        if self._sends in self._ready:
            self.change(self._sends, OUT if self._unsent else 0)
        if self._waiting and self.has_room():
            waiting, self._waiting = self._waiting, []
            for work in waiting:
                self.soon(work)

    def end(self, why: BoxError) -> None:
        """Closes the channel, and tells why. May be called again."""
        if self.is_over:
            return
        self.is_over = True
        close_all(self.leave())
        self._soon.clear()
        self._waiting.clear()
        self._lost(why)
        self.wake()

    @property
    def is_closed(self) -> bool:
        """Whether nobody is to step it any more."""
        return self._epoll.closed

    def close(self) -> None:
        """Lets go of what is left, once nobody steps it any more."""
        with self.lock:
            if not self._epoll.closed:
                self.unwatch(self._wake)
                os.close(self._wake)
                self._epoll.close()

    def _clear_wake(self, _event: int) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            # Somebody else has.
            pass

    def _may_send(self, event: int) -> None:
        if event & GONE:
            self.unwatch(self._sends)
            self._unsent.clear()

    def _receive(self, _event: int) -> None:
        try:
            data = self._buffer[: os.readv(self._receives, (self._buffer,))]
        except BlockingIOError:
            return
        except OSError:
            data = self._buffer[:0]
        self._take(data)

    def _take(self, data: bytes | memoryview) -> None:
        try:
            self.host.receive(data)
            while not self.is_over and (event := self.host.next_event()) is not None:
                self._hear(event)
        except BoxLost as error:
            self.end(error)
