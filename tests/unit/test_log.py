"""The record of a box: its bounds, and that a follower neither misses nor doubles anything."""

from __future__ import annotations

import gc
import threading
import tracemalloc

import pytest

from immure.engine.log import Log, LogEntry


def filled(log: Log, *chunks: bytes) -> Log:
    record = log.begin([b"a"])
    for chunk in chunks:
        record.wrote(0, chunk)
    return log


def test_what_is_kept_is_bounded_and_the_rest_is_counted() -> None:
    log = filled(Log(10_000), *(b"%04d" % number for number in range(1000)))
    logs = log.read()
    kept = [one.data for one in logs.entries]
    assert kept == [b"%04d" % number for number in range(1000 - len(kept), 1000)]
    assert logs.dropped_bytes == len(b"a\0") + 4 * (1000 - len(kept))
    # What is written is not all that an entry takes.
    assert sum(map(len, kept)) < 10_000


def test_a_chunk_that_is_larger_than_all_is_kept_as_far_as_there_is_room() -> None:
    log = filled(Log(1000), b"x" * 5000 + b"end")
    (only,) = log.read().entries
    assert only.data.endswith(b"xend")
    assert 500 < len(only.data) < 1000
    assert log.read().dropped_bytes + len(only.data) == 2 + 5003


def test_small_entries_without_end_take_little_memory() -> None:
    log = Log(1 << 20)
    record = log.begin([b"a"])
    tracemalloc.start()
    try:
        for _ in range(200_000):
            record.wrote(0, b"%d" % id(record))
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_no_room_at_all_keeps_no_data() -> None:
    log = filled(Log(0), b"secret")
    assert [one.data for one in log.read().entries] == [b""]


def test_of_one_command_and_the_last() -> None:
    log = Log(1 << 20)
    first, second = log.begin([b"one"]), log.begin([b"two"])
    for number in range(3):
        first.wrote(0, b"1%d" % number)
        second.wrote(1, b"2%d" % number)
    first.closed()
    assert [one.text() for one in log.read(command=1).entries] == ["one", "10", "11", "12", "closed"]
    assert [one.text() for one in log.read(command=2, tail=2).entries] == ["21", "22"]
    assert log.read(tail=0).entries == ()
    assert log.read(command=3).entries == ()
    assert log.read().output() == b"102011211222"


def test_an_end_is_told_once() -> None:
    log = Log(1 << 20)
    record = log.begin([b"a"])
    record.failed(KeyboardInterrupt())
    record.closed()
    assert [one.stream for one in log.read().entries] == ["started", "ended"]


def test_arguments_come_back_as_they_were() -> None:
    log = Log(1 << 20)
    log.begin([b"", b"two words", b"\xff"])
    (entry,) = log.read().entries
    assert entry.data == b"\0two words\0\xff\0"
    assert entry.text() == "'' 'two words' '\ufffd'"


class Follower(threading.Thread):
    """Follows a log until an entry `last` comes."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log
        self.got: list[LogEntry] = []
        self.dropped = 0
        self.start()

    def run(self) -> None:
        at = 0
        while not (self.got and self.got[-1].data == b"last"):
            found = self.log.wait(at, 20)
            assert found.entries, "nothing came"
            self.got += found.entries
            self.dropped += found.dropped_bytes
            at = found.entries[-1].position


def write_from_threads(log: Log) -> int:
    """Entries from four threads at once, and how many bytes of data these are."""

    def write(number: int) -> None:
        record = log.begin([b"%d" % number])
        for count in range(500):
            record.wrote(0, b"%d" % count)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.add(0, "ended", b"last")
    return 4 * (2 + sum(len(b"%d" % count) for count in range(500))) + len(b"last")


def test_followers_miss_and_double_nothing() -> None:
    log = Log(8 << 20)
    followers = [Follower(log) for _ in range(3)]
    size = write_from_threads(log)
    kept = list(log.read().entries)
    assert sum(len(one.data) for one in kept) == size
    for follower in followers:
        follower.join()
        assert follower.got == kept
        assert follower.dropped == 0
    for command in range(1, 5):
        written = [one.data for one in kept if (one.command, one.stream) == (command, "stdout")]
        assert written == [b"%d" % count for count in range(500)]


def test_a_follower_learns_how_much_it_missed() -> None:
    log = Log(2000)
    followers = [Follower(log) for _ in range(3)]
    size = write_from_threads(log)
    late = Follower(log)
    for follower in (*followers, late):
        follower.join()
        positions = [one.position for one in follower.got]
        assert positions == sorted(set(positions))
        assert follower.dropped + sum(len(one.data) for one in follower.got) == size
    assert late.dropped > 0


def test_a_follower_waits_no_longer_than_it_wants() -> None:
    log = filled(Log(1 << 20))
    (entry,) = log.wait(0, 0).entries
    assert log.wait(entry.position, 0.01).entries == ()


def test_a_command_that_the_garbage_collector_ends_in_the_midst_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs at any moment, on the thread that is in the log: waiting there would be for ever."""
    log = Log(1 << 20)

    class Forgotten:
        def __init__(self) -> None:
            self.me = self
            self.record = log.begin([b"forgotten"])

        def __del__(self) -> None:
            self.record.closed()

    keep = log._keep

    def collecting(*args: object) -> None:
        gc.collect()
        keep(*args)  # type: ignore[arg-type]

    Forgotten()
    monkeypatch.setattr(log, "_keep", collecting)
    log.begin([b"a"]).closed()
    assert [(one.command, one.stream) for one in log.read().entries] == [
        (1, "started"), (2, "started"), (1, "ended"), (2, "ended"),
    ]  # fmt: skip
    positions = [one.position for one in log.read().entries]
    assert positions == sorted(set(positions))
