"""`Sandbox.trace`: what the Sentries of real boxes saw, over both versions of runsc."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from immure import AsyncSandbox, BoxError, BoxLost, RuntimeUnavailable, Sandbox, SpecError
from immure.host.tree import below
from immure.plan.gvisor import CONTAINER
from immure.runtimes.gvisor.box import GVisorBox
from immure.runtimes.gvisor.session import _runsc
from immure.runtimes.gvisor.trace import DROPPED, MALFORMED, Trace, TraceEvent
from runscs import VERSIONS, runsc_of, using

from .command_line import python
from .processes import eventually

pytestmark = [
    pytest.mark.rootless,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="host: the calls are x86_64's"),
]

OPENED = "syscall/openat/exit"
#: Opens what its argument names, as often as the next one says, and calls getppid(110) as often.
FLOOD = """
import os, sys
name, count = sys.argv[1].encode(), int(sys.argv[2])
for one in range(count):
    os.getppid()
    try:
        os.close(os.open(name, os.O_RDONLY))
    except OSError:
        pass
"""


REFUSED = """
import os
for name in ("/none/such", "/etc/passwd"):
    try:
        os.open(name, os.O_RDWR)
    except OSError:
        pass
"""


@pytest.fixture(params=VERSIONS)
def runsc(request: pytest.FixtureRequest) -> Iterator[Path]:
    path = runsc_of(request.param)
    with using(path):
        yield path


@pytest.fixture
def box(runsc: Path) -> Iterator[Sandbox]:
    with Sandbox(level="L3") as made:
        yield made


def opened(events: list[TraceEvent], start: str) -> list[tuple[str, int | None]]:
    """What was opened below a name, and with which error."""
    named = [(str(event.fields.get("pathname", "")), event.denied) for event in events if event.point == OPENED]
    return [one for one in named if one[0].startswith(start)]


def sessions(box: Sandbox) -> str:
    """What the Sentry itself lists."""
    gvisor = box._box
    assert isinstance(gvisor, GVisorBox)
    return _runsc(gvisor, "trace", "list", CONTAINER)


def leftovers(box: Sandbox) -> list[str]:
    """Names of sockets in the outer box."""
    return [one.name for one in Path(f"/proc/{box._box.pid}/root/tmp").iterdir() if one.name.startswith("trace-")]


def test_a_file_that_is_opened_is_seen_with_its_name_and_process(box: Sandbox) -> None:
    context = ("time", "thread_id", "group_id", "process_name", "cwd")
    with box.trace([OPENED, "sentry/execve", "sentry/task_exit"], context=context) as trace:
        ended = box.exec(["sh", "-c", "echo $$; exec cat /etc/passwd"], workdir="/tmp")
        trace.finish()
        events = [*trace]
        assert trace.is_over
    pid = int(ended.stdout.text().split()[0])
    (seen,) = [event for event in events if event.fields.get("pathname") == "/etc/passwd"]
    assert (seen.process.name, seen.process.cwd, seen.denied) == ("cat", "/tmp", None)
    assert seen.result is not None
    started = [event.fields["argv"] for event in events if event.point == "sentry/execve"]
    assert started[-1] == ["cat", "/etc/passwd"]
    # The Sentry counts processes from its own first one on, as our init's do.
    assert {seen.process.group_id} == {event.process.group_id for event in events if event.point == "sentry/execve"}
    assert seen.process.group_id == pid
    assert trace.counts.dropped == trace.counts.malformed == trace.counts.unknown == 0


def test_what_fails_is_denied_with_its_error(box: Sandbox) -> None:
    with box.trace(["syscall/open*/exit", "syscall/connect/exit"]) as trace:
        box.exec(python(REFUSED))
        trace.finish()
        events = [event for event in trace if event.denied is not None]
    assert ("/none/such", 2) in opened(events, "/none")
    (refused,) = opened(events, "/etc/passwd")
    assert refused[1] in (13, 30)


def test_the_session_ends_with_the_trace_and_another_may_follow(box: Sandbox) -> None:
    assert "SESSIONS (0)" in sessions(box)
    for _ in range(2):
        with box.trace() as trace:
            assert "SESSIONS (1)" in sessions(box)
            with pytest.raises(BoxError, match="traced already"):
                box.trace()
            box.exec(["true"])
            assert isinstance(trace.read(10), TraceEvent)
        assert "SESSIONS (0)" in sessions(box)
        assert trace.is_over


@pytest.mark.root
def test_no_name_is_left_in_the_outer_box(box: Sandbox) -> None:
    with box.trace():
        assert leftovers(box) == []
    assert leftovers(box) == []


def test_a_trace_that_is_forgotten_ends_its_session(box: Sandbox) -> None:
    trace: Trace | None = box.trace()
    assert trace is not None
    del trace
    gc.collect()
    gvisor = box._box
    assert isinstance(gvisor, GVisorBox)
    assert eventually(lambda: not gvisor.tracing.locked(), within=10)
    assert "SESSIONS (0)" in sessions(box)
    box.trace().close()


def test_another_thread_closes_it_under_who_reads(box: Sandbox) -> None:
    trace = box.trace(["syscall/chroot/exit"])
    found: list[list[TraceEvent]] = []
    reader = threading.Thread(target=lambda: found.append([*trace]))
    reader.start()
    trace.close()
    reader.join(20)
    assert found == [[]]
    assert "SESSIONS (0)" in sessions(box)


def test_the_end_of_the_box_ends_it_after_what_had_come(runsc: Path) -> None:
    for end in (Sandbox.close, Sandbox.kill):
        with Sandbox(level="L3") as box:
            trace = box.trace([OPENED])
            box.exec(["cat", "/none/such"])
            end(box)
            assert ("/none/such", 2) in opened([*trace], "/none")
            trace.close()
            with pytest.raises(BoxLost):
                box.trace()


@pytest.mark.root
def test_a_sentry_that_is_killed_ends_it(box: Sandbox) -> None:
    trace = box.trace([OPENED])
    box.exec(["cat", "/none/such"])
    for pid in below(box._box.pid):
        # What runs beside a Sentry may have ended by now.
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"\0boot\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    assert ("/none/such", 2) in opened([*trace], "/none")
    trace.close()


def test_who_reads_slowly_has_little_kept_and_learns_what_was_dropped(box: Sandbox) -> None:
    count, kept = 200_000, 2_000
    points = [OPENED, "syscall/sysno/110/exit"]
    with box.trace(points, max_events=kept) as trace:
        box.exec(python(FLOOD, "/none/such", str(count // 2)))
        # Nobody has read anything.
        assert trace.counts.events <= kept
        assert len(trace._shared.intake._kept) <= kept + 1
        trace.finish()
        told = seen = 0
        for event in trace:
            if event.point == DROPPED:
                told += int(event.fields["count"])  # type: ignore[call-overload]
            else:
                seen += 1
        counts = trace.counts
    assert counts.malformed == counts.unknown == 0
    assert counts.dropped == told > 0
    assert seen == counts.events
    # A Python opens some files of its own.
    assert count <= seen + told < count + 2_000


HOSTILE = r"""
import ctypes, os
for name in (b"/none/" + b"n" * 4000, b"/none/\xff\xfe", b"/none/\x1b[31mred\n", b"/none/" + b"/x" * 2000):
    try:
        os.open(name, os.O_RDONLY)
    except OSError:
        pass
for argv in ([b"a" * 100_000] * 10, [b"x"] * 20_000, [b"\xff\xfe", b"\x1b[2J"]):
    if os.fork() == 0:
        try:
            os.execve(b"/bin/true", argv, {})
        finally:
            os._exit(1)
    os.wait()
libc = ctypes.CDLL(None)
libc.prctl(15, b"\xff\xff\x1b[31m", 0, 0, 0)
os.open(b"/none/last", os.O_RDONLY)
"""


def test_hostile_names_and_arguments_harm_nothing(box: Sandbox) -> None:
    context = ("time", "thread_id", "group_id", "process_name", "cwd")
    with box.trace([OPENED, "sentry/execve", "syscall/execve/*", "syscall/sysno/257/exit"], context=context) as trace:
        box.exec(python(HOSTILE))
        box.exec(["cat", "/none/after"])
        trace.finish()
        events = [*trace]
        assert trace.counts.malformed == trace.counts.unknown == trace.counts.refused == 0
    names = [name for name, _ in opened(events, "/none")]
    assert "/none/" + "n" * 4000 in names
    assert "/none/\x1b[31mred\n" in names
    assert names[-1] == "/none/after"
    # Neither is a program with such an argument.
    assert sum(event.point == "sentry/execve" for event in events) < 5
    # A process whose name is no text is seen nowhere by who asks for names: a hole of gVisor's.
    assert "/none/last" not in names
    with box.trace([OPENED, "syscall/sysno/59/exit"]) as trace:
        box.exec(python(HOSTILE))
        trace.finish()
        events = [*trace]
    assert ("/none/last", 2) in opened(events, "/none/last")
    # By its number every one is seen: the interpreter, and three that it starts.
    assert sum(event.point == "syscall/sysno/59/exit" for event in events) == 4


def test_two_boxes_that_are_traced_at_once_do_not_mix(box: Sandbox) -> None:
    with Sandbox(level="L3") as other, box.trace([OPENED]) as first, other.trace([OPENED]) as second:
        threads = [
            threading.Thread(target=lambda one=one, name=name: one.exec(python(FLOOD, name, "300")))
            for one, name in ((box, "/none/first"), (other, "/none/second"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for trace, own in ((first, "/none/first"), (second, "/none/second")):
            trace.finish()
            seen = opened([*trace], "/none")
            assert {name for name, _ in seen} == {own}
            assert len(seen) + trace.counts.dropped >= 300


def test_what_can_not_be_traced_is_named(box: Sandbox) -> None:
    with pytest.raises(SpecError, match=r"points\[1\].*'sentry/none'"):
        box.trace(["sentry/execve", "sentry/none"])
    with pytest.raises(SpecError, match="'syscall/sysno/110/exit' shows the call's bare arguments"):
        box.trace(["syscall/getppid/exit"])
    with pytest.raises(SpecError, match="several names"):
        box.trace("sentry/execve")
    with pytest.raises(SpecError, match=r"context\[0\]"):
        box.trace(["sentry/execve"], context=["nonsense"])
    with pytest.raises(SpecError, match="nothing could be kept"):
        box.trace(max_events=0)
    assert "SESSIONS (0)" in sessions(box)
    box.trace().close()


def test_a_box_without_a_sentry_says_its_level() -> None:
    with Sandbox() as box, pytest.raises(RuntimeUnavailable, match=r"level L3.*a box of level L2"):
        box.trace()


def test_a_paused_box_can_be_traced(box: Sandbox) -> None:
    box.pause()
    with box.trace([OPENED]) as trace:
        box.resume()
        box.exec(["cat", "/none/such"])
        trace.finish()
        assert ("/none/such", 2) in opened([*trace], "/none")


def test_files_of_a_box_go_on_while_it_is_traced(box: Sandbox) -> None:
    with box.trace(["syscall/*/*", "sentry/*"]) as trace:
        box.files.write("/tmp/note", b"text" * 100_000)
        assert box.files.read("/tmp/note").text().startswith("text")
        assert trace.counts.events
        assert all(event.point != MALFORMED for event in iter(lambda: trace.read(0.2), None))


def test_awaited(runsc: Path) -> None:
    async def follow() -> None:
        async with AsyncSandbox(level="L3") as box:
            async with await box.trace([OPENED]) as trace:
                with pytest.raises(BoxError, match="traced already"):
                    await box.trace()
                await box.exec(["cat", "/none/such"])
                trace.finish()
                assert ("/none/such", 2) in opened([event async for event in trace], "/none")
            # Cancelled while it opens: nothing of it stays.
            opening = asyncio.create_task(box.trace())
            await asyncio.sleep(0.001)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            del opening
            for _ in range(100):
                try:
                    async with await box.trace([OPENED]):
                        break
                except BoxError:
                    gc.collect()
                    await asyncio.sleep(0.1)
            else:
                raise AssertionError("traced for ever")
            # Cancelled while it waits.
            trace = await box.trace(["syscall/chroot/exit"])
            reading = asyncio.create_task(anext(trace))
            await asyncio.sleep(0.05)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await trace.close()
        async with AsyncSandbox() as box:
            with pytest.raises(RuntimeUnavailable, match="L3"):
                await box.trace()

    asyncio.run(follow())
