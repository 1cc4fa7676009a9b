"""What comes from Sentries, kept within bounds until somebody reads it. No sockets, no clock, no threads.

Each connection begins with a handshake: the Sentry's side says which version it speaks, and is told ours. Then each
datagram is one event: `u16 header length, u16 type, u32 dropped` (little-endian), and after the header the message.
What was dropped is counted from the connection's start, modulo 2^32.
Source: gVisor's `pkg/sentry/seccheck/sinks/remote/wire`, and `points/common.proto`.
"""

from __future__ import annotations

from collections import deque
from struct import Struct as Layout

import msgspec

from immure.runtimes.gvisor.trace.events import (
    DROPPED,
    MALFORMED,
    UNKNOWN,
    NameOf,
    TraceEvent,
    own_event,
    read_event,
)
from immure.runtimes.gvisor.trace.schema import HANDSHAKE
from immure.runtimes.gvisor.trace.wire import Malformed, decode

VERSION = 1
#: Field 1, a varint.
ANSWER = bytes([0x08, VERSION])
#: Longer than anything that fits a socket's buffer where nobody has changed its size.
DATAGRAM_BYTES = 256 * 1024
#: A handshake of any version is a few bytes.
HELLO_BYTES = 1024
#: What keeping an entry takes beside its bytes.
ENTRY_BYTES = 200
#: Less room than for so much is none, once there was none: a turn of reading should be worth it.
_LITTLE, _LITTLE_BYTES = 256, 256 * 1024

_HEADER = Layout("<HHI")


class TraceCounts(msgspec.Struct, frozen=True):
    """What came so far.

    `events` is how many were kept, read or not. `dropped` is how many were not, by the Sentry or here for want of room:
    the Sentry's come with the next event, and those at the very end when the session ends. `malformed` and `unknown`
    are of those that were read. `refused` connections spoke another protocol, or were too many at once.
    """

    events: int = 0
    dropped: int = 0
    malformed: int = 0
    unknown: int = 0
    connections: int = 0
    refused: int = 0


class HandshakeRefused(ValueError):
    """What connected is no Sentry that we could understand."""


class Peer:
    """One connection."""

    __slots__ = ("dropped", "greeted")

    def __init__(self) -> None:
        self.greeted = False
        self.dropped = 0


class Intake:
    """Takes datagrams and gives events, in order."""

    def __init__(self, name_of: NameOf, *, max_events: int, max_bytes: int) -> None:
        self._name_of = name_of
        self._max_events, self._max_bytes = max_events, max_bytes
        self._kept: deque[tuple[int, bytes] | TraceEvent] = deque()
        self._bytes = 0
        self._least_dropped = self._discarded = self._untold = 0
        self._events = self._dropped = self._malformed = self._unknown = self._connections = self._refused = 0

    @property
    def has_room(self) -> bool:
        """Whether another datagram may come. One that came nevertheless is kept all the same."""
        return len(self._kept) < self._max_events and self._bytes < self._max_bytes

    @property
    def holds(self) -> bool:
        """Whether there is something to take."""
        return bool(self._kept)

    @property
    def has_much_room(self) -> bool:
        """Whether there is room for more than a little."""
        room, room_bytes = self._max_events - len(self._kept), self._max_bytes - self._bytes
        return room >= min(_LITTLE, (self._max_events + 1) // 2) and room_bytes >= min(
            _LITTLE_BYTES, self._max_bytes // 2
        )

    @property
    def counts(self) -> TraceCounts:
        """What came so far."""
        dropped = self._dropped + self._discarded
        return TraceCounts(self._events, dropped, self._malformed, self._unknown, self._connections, self._refused)

    def dropped_at_least(self, count: int) -> None:
        """What a Sentry says at its end: it has dropped so many, whatever its events have told of it."""
        self._least_dropped = max(self._least_dropped, count)

    def finish(self) -> None:
        """No datagram will come: what was dropped after the last one is told now."""
        self._lose(max(0, self._least_dropped - self._dropped))
        self._tell_dropped()

    def _lose(self, count: int) -> None:
        self._dropped += count
        self._untold += count

    def _tell_dropped(self) -> None:
        """An event of those that were dropped since the last one that was kept."""
        if self._untold:
            self._kept.append(own_event(DROPPED, count=self._untold))
            self._bytes += ENTRY_BYTES
            self._untold = 0

    def refuse(self) -> None:
        """Counts a connection that was not let in."""
        self._refused += 1

    def put(self, peer: Peer, datagram: bytes, *, whole: bool = True, keep: bool = True) -> bytes:
        """Takes a datagram, and gives what is to be answered. Raises HandshakeRefused, after which there is no more.

        Without `keep` an event is counted as dropped.
        """
        if not peer.greeted:
            self._greet(datagram, whole)
            peer.greeted = True
            self._connections += 1
            return ANSWER
        if len(datagram) >= _HEADER.size:
            dropped = _HEADER.unpack_from(datagram)[2]
            self._lose((dropped - peer.dropped) & 0xFFFF_FFFF)
            peer.dropped = dropped
        if keep:
            self._take_in(datagram, whole)
        else:
            self._discarded += 1
            self._untold += 1
        return b""

    def _take_in(self, datagram: bytes, whole: bool) -> None:
        self._events += 1
        if len(datagram) < _HEADER.size:
            return self._keep(_malformed("no header", 0, datagram), 0)
        begin, kind, _ = _HEADER.unpack_from(datagram)
        if not whole:
            self._keep(_malformed("longer than any may be", kind, datagram), 0)
        elif not _HEADER.size <= begin <= len(datagram):
            self._keep(_malformed(f"a header of {begin} bytes", kind, datagram), 0)
        else:
            payload = datagram[begin:]
            self._keep((kind, payload), len(payload))
        return None

    def _greet(self, datagram: bytes, whole: bool) -> None:
        try:
            version = decode(HANDSHAKE, datagram)["version"] if whole and len(datagram) <= HELLO_BYTES else 0
        except Malformed:
            version = 0
        if not isinstance(version, int) or version < VERSION:
            self._refused += 1
            raise HandshakeRefused(f"needs version {VERSION} or later of the Sentry's protocol")

    def _keep(self, entry: tuple[int, bytes] | TraceEvent, size: int) -> None:
        self._tell_dropped()
        self._kept.append(entry)
        self._bytes += ENTRY_BYTES + size

    def take(self) -> TraceEvent | None:
        """The oldest event; None where there is none."""
        if not self._kept:
            return None
        entry = self._kept.popleft()
        self._bytes -= ENTRY_BYTES
        if isinstance(entry, TraceEvent):
            self._malformed += entry.point == MALFORMED
            return entry
        kind, payload = entry
        self._bytes -= len(payload)
        try:
            event = read_event(kind, payload, self._name_of)
        except Malformed as error:
            self._malformed += 1
            return _malformed(str(error), kind, payload)
        self._unknown += event.point == UNKNOWN
        return event

    def forget(self) -> None:
        """Lets go of all that was not read."""
        self._kept.clear()
        self._bytes = 0


def _malformed(reason: str, kind: int, datagram: bytes) -> TraceEvent:
    return own_event(MALFORMED, reason=reason, type=kind, bytes=len(datagram))
