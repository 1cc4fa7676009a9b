"""The stream of a box's events, with a sender that is no Sentry: bounds, drops, junk, and that nothing is left."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immure.errors import BoxLost, SetupFailed, SpecError
from immure.runtimes.gvisor.trace import DROPPED, MALFORMED, UNKNOWN, Trace, TraceCounts
from immure.runtimes.gvisor.trace.aio import AsyncTrace
from immure.runtimes.gvisor.trace.intake import HandshakeRefused, Intake, Peer
from immure.runtimes.gvisor.trace.listener import CONNECTIONS
from listening import listening_at

SOON_S = 10
TASK_EXIT = 5
SO_SNDBUFFORCE = 32


def frame(status: int, *, dropped: int = 0, kind: int = TASK_EXIT, head: int = 8, pad: int = 0) -> bytes:
    """A task's end, with a number to know it by."""
    body = bytes([2 << 3]) + _varint(status)
    body += b"\x9a\x06" + _varint(pad) + bytes(pad) if pad else b""
    return struct.pack("<HHI", head, kind, dropped) + bytes(max(0, head - 8)) + body


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


class Sender:
    """Says and counts what a Sentry would."""

    def __init__(self, path: Path, hello: bytes = b"\x08\x01") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(SOON_S)
        self.socket.connect(str(path))
        self.socket.send(hello)
        self.answer = self.socket.recv(100)
        self.socket.setblocking(False)
        self.dropped = self.sent = 0

    def send(self, number: int, **keywords: int) -> bool:
        try:
            self.socket.send(frame(number, dropped=self.dropped, **keywords))
        except BlockingIOError:
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events"


@pytest.fixture(autouse=True)
def nothing_left(path: Path) -> Iterator[None]:
    before, threads = _descriptors(), threading.active_count()
    yield
    path.unlink(missing_ok=True)
    gc.collect()
    assert eventually(lambda: _descriptors() <= before), (_descriptors(), before)
    assert eventually(lambda: threading.active_count() <= threads)


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + SOON_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def trace_at(path: Path, *session: FakeSession, **bounds: int) -> Trace:
    return Trace(listening_at(path), *session, **bounds)


def number(event: object) -> object:
    return event.fields["exit_status"]  # type: ignore[attr-defined]


def test_events_come_in_order_and_the_stream_ends_with_the_last_sender(path: Path) -> None:
    with trace_at(path) as trace:
        sender = Sender(path)
        assert sender.answer == b"\x08\x01"
        for status in range(100):
            assert sender.send(status)
        trace.finish()
        sender.close()
        assert [number(event) for event in trace] == list(range(100))
        assert trace.is_over
        assert trace.counts == TraceCounts(events=100, connections=1)
        assert trace.read() is None


def test_one_sender_after_the_other_and_two_at_once(path: Path) -> None:
    with trace_at(path) as trace:
        first = Sender(path)
        first.send(1)
        assert number(trace.read(SOON_S)) == 1
        second = Sender(path)
        second.send(2)
        assert number(trace.read(SOON_S)) == 2
        first.send(3)
        first.close()
        assert number(trace.read(SOON_S)) == 3
        third = Sender(path)
        trace.finish()
        third.send(4)
        second.close()
        third.close()
        assert [number(event) for event in trace] == [4]
        assert trace.counts.connections == 3


def test_who_reads_slowly_has_no_more_kept_than_the_bound_and_learns_what_was_dropped(path: Path) -> None:
    with trace_at(path, max_events=50) as trace:
        sender = Sender(path)
        for status in range(20_000):
            sender.send(status)
        assert sender.dropped > 10_000
        # Nobody is held up for longer than a moment: what is in the socket is dropped here, then.
        assert eventually(lambda: trace.counts.dropped > 0)
        assert trace.counts.events <= 50
        seen, told = [], 0
        last, patience = 30_000, 0.1
        while not seen or seen[-1] != last:
            event = trace.read(patience)
            if event is None:
                # There is room: the next event tells of those that had none.
                assert sender.send(last)
                patience = SOON_S
            elif event.point == DROPPED:
                told += int(event.fields["count"])  # type: ignore[call-overload]
            else:
                seen.append(number(event))
        assert seen == sorted(set(seen))
        assert trace.counts.events == len(seen)
        assert trace.counts.dropped == told
        assert len(seen) + told == sender.sent + sender.dropped
        sender.close()


def test_bytes_are_bounded_as_well(path: Path) -> None:
    with trace_at(path, max_bytes=100_000) as trace:
        sender = Sender(path)
        while sender.send(1, pad=20_000) or trace.counts.events < 5:
            pass
        assert eventually(lambda: trace.counts.dropped > 0)
        assert trace.counts.events == 5
        while trace.read(0.2) is not None:
            pass
        assert sender.send(2)
        assert trace.read(SOON_S) is not None
        assert trace.counts.events + trace.counts.dropped == sender.sent + sender.dropped
        sender.close()


def test_reading_makes_room_while_the_sender_goes_on(path: Path) -> None:
    with trace_at(path, max_events=20) as trace:
        sender = Sender(path)

        def send() -> None:
            left = 5000
            while left:
                if sender.send(left):
                    left -= 1
                else:
                    time.sleep(0.0001)
            sender.close()

        thread = threading.Thread(target=send)
        thread.start()
        assert eventually(lambda: trace.counts.connections == 1)
        trace.finish()
        events = [*trace]
        thread.join()
        assert [number(event) for event in events if event.point != DROPPED] == list(range(5000, 0, -1))
        told = sum(int(event.fields["count"]) for event in events if event.point == DROPPED)  # type: ignore[call-overload]
        assert told == trace.counts.dropped <= sender.dropped


@pytest.mark.parametrize(
    "junk", [b"\x08\x00", b"", b"\x08", b"\xff" * 20, b"GET / HTTP/1.1\r\n\r\n", b"\x08\x01" * 100_000]
)
def test_what_is_no_sentry_is_refused_and_others_are_not(junk: bytes, path: Path) -> None:
    with trace_at(path) as trace, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.settimeout(SOON_S)
        stranger.connect(str(path))
        try:
            stranger.send(junk)
        except OSError:
            # Longer than a socket takes.
            stranger.send(b"\0")
        if junk:
            assert stranger.recv(10) == b""
            assert eventually(lambda: trace.counts.refused == 1)
        sender = Sender(path)
        sender.send(5)
        assert number(trace.read(SOON_S)) == 5
        sender.close()


def test_a_later_version_is_told_ours(path: Path) -> None:
    with trace_at(path):
        sender = Sender(path, b"\x08\x07\x12\x03new")
        assert sender.answer == b"\x08\x01"
        sender.close()


def test_no_more_than_a_few_at_once(path: Path) -> None:
    with trace_at(path) as trace:
        senders = [Sender(path) for _ in range(CONNECTIONS)]
        with pytest.raises((ConnectionError, AssertionError)):
            assert Sender(path).answer
        assert trace.counts.refused == 1
        for sender in senders:
            sender.close()


@pytest.mark.parametrize(
    ("junk", "point"),
    [
        (b"x", MALFORMED),
        (frame(1)[:7], MALFORMED),
        (frame(1, head=7), MALFORMED),
        (frame(1, head=0), MALFORMED),
        (struct.pack("<HHI", 0xFFFF, 5, 0) + b"\x10\1", MALFORMED),
        (struct.pack("<HHI", 8, 5, 0) + b"\x10", MALFORMED),
        (struct.pack("<HHI", 8, 5, 0) + bytes(5000), MALFORMED),
        (frame(1, kind=0), UNKNOWN),
        (frame(1, kind=9999), UNKNOWN),
    ],
)
def test_junk_is_counted_and_ends_nothing(junk: bytes, point: str, path: Path) -> None:
    with trace_at(path) as trace:
        sender = Sender(path)
        sender.socket.send(junk)
        sender.send(6)
        event = trace.read(SOON_S)
        assert event is not None
        assert event.point == point
        assert number(trace.read(SOON_S)) == 6
        counts = trace.counts
        assert (counts.events, counts.malformed + counts.unknown) == (2, 1)
        sender.close()


def test_a_longer_header_is_passed_over(path: Path) -> None:
    with trace_at(path) as trace:
        sender = Sender(path)
        sender.send(8, head=40)
        assert number(trace.read(SOON_S)) == 8
        sender.close()


def test_a_datagram_that_is_longer_than_any_may_be(path: Path) -> None:
    with trace_at(path) as trace:
        sender = Sender(path)
        try:
            sender.socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 4 << 20)
        except OSError:
            sender.close()
            pytest.skip("root: only root sends longer ones")
        sender.socket.setblocking(True)
        sender.socket.send(frame(1, pad=600_000))
        event = trace.read(SOON_S)
        assert event is not None
        assert event.point == MALFORMED
        assert "longer" in str(event.fields["reason"])
        sender.close()


def test_descriptors_that_are_sent_are_not_kept(path: Path) -> None:
    with trace_at(path) as trace:
        sender = Sender(path)
        before = _descriptors()
        for _ in range(5):
            socket.send_fds(sender.socket, [frame(1)], [0, 1, 2])
            assert trace.read(SOON_S) is not None
        assert _descriptors() == before
        sender.close()


def test_the_count_of_dropped_events_goes_round(path: Path) -> None:
    intake = Intake(lambda _: None, max_events=100, max_bytes=10_000)
    peer = Peer()
    intake.put(peer, b"\x08\x01")
    for dropped in (2**32 - 2, 3, 3):
        intake.put(peer, frame(1, dropped=dropped))
    assert intake.counts.dropped == 2**32 - 2 + 5
    other = Peer()
    intake.put(other, b"\x08\x01")
    intake.put(other, frame(1, dropped=10))
    assert intake.counts.dropped == 2**32 + 3 + 10


def test_a_hello_that_was_cut_is_none() -> None:
    with pytest.raises(HandshakeRefused):
        Intake(lambda _: None, max_events=1, max_bytes=1).put(Peer(), b"\x08\x01", whole=False)


def test_closing_wakes_who_waits(path: Path) -> None:
    trace = trace_at(path)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append([*trace]))
    thread.start()
    time.sleep(0.05)
    trace.close()
    thread.join(SOON_S)
    assert found == [[]]
    trace.close()


def test_waiting_has_an_end(path: Path) -> None:
    with trace_at(path) as trace:
        assert trace.read(0.02) is None
        assert not trace.is_over
        assert trace.read(0) is None


class FakeSession:
    """A session with a sender of our own, which has dropped as many as it says."""

    def __init__(self, path: Path, *, dropped: int = 0, fault: BaseException | None = None) -> None:
        self.path, self.dropped, self.fault = path, dropped, fault
        self.sender: Sender | None = None
        self.ends = 0

    def begin(self) -> None:
        self.sender = Sender(self.path)

    def end(self) -> int:
        self.ends += 1
        if self.sender is not None:
            self.sender.close()
        if self.fault is not None:
            raise self.fault
        return self.dropped


def _can_connect(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
            stranger.connect(str(path))
    except ConnectionRefusedError:
        return False
    return True


def test_a_session_begins_once_somebody_listens_and_ends_with_the_trace(path: Path) -> None:
    session = FakeSession(path)
    trace = trace_at(path, session)
    assert session.sender is not None
    assert eventually(lambda: not _can_connect(path)), "nobody else is waited for"
    trace.close()
    trace.close()
    assert session.ends == 1


def test_what_is_on_its_way_when_a_session_is_finished_is_read(path: Path) -> None:
    session = FakeSession(path)
    with trace_at(path, session) as trace:
        assert session.sender is not None
        for status in range(20):
            session.sender.send(status)
        trace.finish()
        trace.finish()
        assert [number(event) for event in trace] == list(range(20))
    assert session.ends == 1


def test_a_sender_that_is_gone_ends_it_and_the_session(path: Path) -> None:
    session = FakeSession(path)
    with trace_at(path, session) as trace:
        assert session.sender is not None
        session.sender.send(4)
        session.sender.close()
        assert [number(event) for event in trace] == [4]
        assert session.ends == 1
    assert session.ends == 1


def test_what_was_dropped_at_the_very_end_is_told_by_the_session(path: Path) -> None:
    session = FakeSession(path, dropped=10)
    with trace_at(path, session) as trace:
        assert session.sender is not None
        session.sender.send(1)
        session.sender.dropped = 7
        session.sender.send(2)
        trace.finish()
        told = [event.fields["count"] if event.point == DROPPED else number(event) for event in trace]
        assert told == [1, 7, 2, 3]
        assert trace.counts == TraceCounts(events=2, dropped=10, connections=1)


def test_a_box_that_has_ended_has_no_session_to_end(path: Path) -> None:
    with trace_at(path, FakeSession(path, fault=BoxLost("the box has ended"))) as trace:
        trace.finish()
        assert [*trace] == []


def test_an_end_that_fails_leaves_nothing_either(path: Path) -> None:
    with trace_at(path, FakeSession(path, fault=RuntimeError("no such session"))) as trace:
        trace.finish()
        with pytest.raises(RuntimeError, match="no such session"):
            trace.read(SOON_S)


def test_a_session_that_does_not_begin_is_ended(path: Path) -> None:
    session = FakeSession(path.parent / "none")
    with pytest.raises(FileNotFoundError):
        trace_at(path, session)
    assert session.ends == 1


def test_bounds_that_allow_nothing_are_refused_and_leave_nothing(path: Path) -> None:
    session = FakeSession(path)
    for bounds in ({"max_events": 0}, {"max_bytes": 0}):
        with pytest.raises(SpecError, match="nothing could be kept"):
            trace_at(path, session, **bounds)
        path.unlink()
    assert session.ends == 2


def test_what_does_not_listen_is_refused(path: Path) -> None:
    with pytest.raises(SetupFailed, match="no Sentry's events can be heard"):
        Trace(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    with pytest.raises(SetupFailed):
        Trace(socket.create_server(("127.0.0.1", 0)))


def test_a_trace_that_is_forgotten(path: Path) -> None:
    session = FakeSession(path)
    trace_at(path, session)
    gc.collect()
    assert eventually(lambda: session.ends == 1)


def test_the_interpreter_ends_under_a_trace(path: Path) -> None:
    code = (
        "import socket; from immure.runtimes.gvisor.trace import Trace\n"
        "one = Trace(socket.socket(fileno={})); print('listening')"
    )
    listening = listening_at(path)
    done = subprocess.run(
        [sys.executable, "-c", code.format(listening.fileno())],
        pass_fds=[listening.fileno()],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=SOON_S,
        check=False,
    )
    listening.close()
    assert (done.returncode, done.stdout, done.stderr) == (0, "listening\n", "")


def test_a_forked_copy_takes_nothing_away(path: Path) -> None:
    with trace_at(path) as trace:
        pid = os.fork()
        if pid == 0:
            trace.close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        sender = Sender(path)
        sender.send(9)
        assert number(trace.read(SOON_S)) == 9
        sender.close()


def test_awaited_events_come_in_order_and_end(path: Path) -> None:
    async def follow() -> list[object]:
        async with AsyncTrace(trace_at(path)) as trace:
            sender = await asyncio.to_thread(Sender, path)
            for status in range(200):
                sender.send(status)
            trace.finish()
            sender.close()
            return [number(event) async for event in trace]

    assert asyncio.run(follow()) == list(range(200))


def test_giving_up_waiting_loses_no_event_and_leaves_nothing(path: Path) -> None:
    async def follow() -> None:
        trace = trace_at(path)
        async with AsyncTrace(trace) as awaited:
            for _ in range(20):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(awaited), 0.002)
            assert not trace._shared._callbacks
            sender = await asyncio.to_thread(Sender, path)
            sender.send(3)
            assert number(await anext(awaited)) == 3
            sender.close()

    asyncio.run(follow())


def test_a_stream_that_never_pauses_leaves_the_loop_to_others_too(path: Path) -> None:
    async def follow() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        trace = trace_at(path)
        sender = await asyncio.to_thread(Sender, path)
        for status in range(1000):
            while not sender.send(status):
                await asyncio.sleep(0.001)
        trace.finish()
        sender.close()
        assert await asyncio.to_thread(eventually, lambda: trace.counts.events == 1000)
        task = asyncio.create_task(other())
        async with AsyncTrace(trace) as awaited:
            count = sum([1 async for event in awaited if event.point != DROPPED])
        task.cancel()
        assert count == 1000
        return turns

    assert asyncio.run(follow()) >= 10


def test_closing_ends_who_awaits(path: Path) -> None:
    async def follow() -> list[object]:
        trace = AsyncTrace(trace_at(path))

        async def all_of_it() -> list[object]:
            return [event async for event in trace]

        task = asyncio.create_task(all_of_it())
        await asyncio.sleep(0.02)
        await trace.close()
        return await asyncio.wait_for(task, SOON_S)

    assert asyncio.run(follow()) == []
