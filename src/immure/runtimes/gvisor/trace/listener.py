"""The socket that Sentries connect to, read on a thread of its own.

While there is no room for more the connections are not read. Then the Sentry waits as long as its session says before
it drops an event, and the call that it is of waits with it, for some milliseconds: so who reads is waited for, but only
for a moment each time, after which what comes is dropped here. The thread also ends the session, whatever it ends for:
so that is done once, and nobody who lets go of a stream waits for it but who says `close`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from immure.errors import ImmureError, SetupFailed
from immure.runtimes.gvisor.trace.intake import DATAGRAM_BYTES, HandshakeRefused, Intake, Peer

#: At once: that of a session and of the one that takes its place, and what is about to say that it is neither.
CONNECTIONS = 4
#: Datagrams of one connection, before the others have their turn.
BATCH = 64
_NO_DESCRIPTORS_S = 0.05
#: How long a box may be held up by a reader, each time that there is no room.
_PATIENCE_S = 0.05
_IN = select.POLLIN


class Session(Protocol):
    """What has one Sentry report."""

    def begin(self) -> None:
        """Has it connect: on return it has, and reports. Raises ImmureError."""

    def end(self) -> int:
        """Has it report no more, and gives how many events it has dropped in all. Raises ImmureError."""
        ...


class Shared:
    """What the thread and the readers share: an intake, under a lock, and who waits for it."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        #: Nothing more will come.
        self.ended = False
        self.failure: BaseException | None = None
        # Of a kind that the same thread may take again: the garbage collector closes streams at any moment.
        self.lock = threading.RLock()
        self.more = threading.Condition(self.lock)
        self._callbacks: list[Callable[[], None]] = []

    def call_once(self, callback: Callable[[], None]) -> None:
        """Has it called as soon as there may be more, on any thread. The lock is held, then and now."""
        self._callbacks.append(callback)

    def call_no_more(self, callback: Callable[[], None]) -> None:
        """Forgets it, if it was not called."""
        with self.lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def tell(self) -> None:
        """Wakes everybody who waits. The lock is held."""
        self.more.notify_all()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class Listener:
    """Serves a listening socket, which it owns, until it is closed, or alone and at the end of what had connected."""

    def __init__(self, listening: socket.socket, shared: Shared, session: Session | None) -> None:
        _check(listening)
        listening.setblocking(False)
        self._socket = listening
        self._shared = shared
        self._session = session
        self._owner = os.getpid()
        self._alone = self._ending = self._closing = False
        self._full_since: float | None = None
        self._buffer = bytearray(DATAGRAM_BYTES)
        self._peers: dict[int, tuple[socket.socket, Peer]] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="immure-trace", daemon=True)
        self._thread.start()

    def leave_alone(self) -> None:
        """No other Sentry will come: it ends with those that are there."""
        with self._shared.lock:
            self._alone = True
            self._poke()

    def finish(self) -> None:
        """The same, and the session is ended: what is on its way yet still comes."""
        with self._shared.lock:
            self._alone = self._ending = True
            self._poke()

    def room_again(self) -> None:
        """There is room again, if there was none. The lock is held."""
        if self._full_since is not None:
            self._full_since = None
            self._poke()

    def close(self) -> None:
        """Ends it. Nothing is left behind. Harmless after the first time."""
        if os.getpid() == self._owner:
            self.abandon()
            if threading.current_thread() is not self._thread:
                self._thread.join()

    def abandon(self) -> None:
        """Has it ended, without waiting for that: the garbage collector may come at any moment."""
        if os.getpid() != self._owner:
            # A forked copy: it is another process's.
            return
        with self._shared.lock:
            self._closing = True
            self._poke()

    def _poke(self) -> None:
        """Has the thread look again. The lock is held: the thread closes the descriptor under it."""
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            while not self._closing and (self._socket.fileno() >= 0 or self._peers):
                self._step()
        except BaseException as error:
            failure = error
        self._socket.close()
        try:
            self._end_session()
        except BaseException as error:
            failure = failure or error
        for number in [*self._peers]:
            self._drop(number)
        with self._shared.lock:
            self._shared.intake.finish()
            self._shared.ended, self._shared.failure = True, failure
            self._shared.tell()
            os.close(self._wake)
            self._wake = -1

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is None:
            return
        try:
            dropped = session.end()
        except ImmureError:
            # The box has ended, and with it the session.
            return
        with self._shared.lock:
            self._shared.intake.dropped_at_least(dropped)

    def _step(self) -> None:
        poll = select.poll()
        poll.register(self._wake, _IN)
        if self._socket.fileno() >= 0:
            poll.register(self._socket, _IN)
        wait_ms = self._held_up_ms()
        if wait_ms is None:
            for number in self._peers:
                poll.register(number, _IN)
        for number, _ in poll.poll(wait_ms):
            if number == self._wake:
                os.eventfd_read(self._wake)
            elif number in self._peers:
                self._read(number)
            else:
                self._accept()
        if self._alone and self._socket.fileno() >= 0:
            self._accept()
            self._socket.close()
        if self._ending:
            self._end_session()

    def _held_up_ms(self) -> int | None:
        """How long nothing is to be read yet; None where something is."""
        with self._shared.lock:
            if self._full_since is None and not self._shared.intake.has_room:
                self._full_since = time.monotonic()
            since = self._full_since
        left = _PATIENCE_S - (time.monotonic() - since) if since is not None else 0
        return int(left * 1000) + 1 if left > 0 else None

    def _accept(self) -> None:
        """All that wait."""
        while True:
            try:
                connection = self._socket.accept()[0]
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    # It waits on: without a pause we would ask all the time.
                    time.sleep(_NO_DESCRIPTORS_S)
                return
            connection.setblocking(False)
            if len(self._peers) >= CONNECTIONS:
                with self._shared.lock:
                    self._shared.intake.refuse()
                connection.close()
                continue
            self._peers[connection.fileno()] = connection, Peer()

    def _read(self, number: int) -> None:
        connection, peer = self._peers[number]
        shared = self._shared
        for _ in range(BATCH):
            try:
                # Without room for descriptors: those that are sent are closed by the kernel.
                size, _, flags, _ = connection.recvmsg_into([self._buffer])
            except BlockingIOError:
                break
            except OSError:
                size = flags = 0
            if not size:
                self._drop(number)
                break
            datagram = bytes(memoryview(self._buffer)[:size])
            try:
                with shared.lock:
                    keep = self._full_since is None
                    answer = shared.intake.put(peer, datagram, whole=not flags & socket.MSG_TRUNC, keep=keep)
                    shared.tell()
                    room = not keep or shared.intake.has_room
                if answer:
                    connection.send(answer)
            except (HandshakeRefused, OSError):
                self._drop(number)
                break
            if not room:
                break

    def _drop(self, number: int) -> None:
        self._peers.pop(number)[0].close()


def _check(listening: socket.socket) -> None:
    """Raises SetupFailed for what is no such socket: it may come out of a box."""
    kind = (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        found = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        listens = found == 1 and (listening.family, listening.type) == kind
    except OSError:
        listens = False
    if not listens:
        raise SetupFailed(
            "no Sentry's events can be heard",
            step="trace",
            need="a Unix socket of kind SOCK_SEQPACKET that listens",
            have=str(listening),
        )
