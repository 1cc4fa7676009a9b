"""The native guest, in an ordinary box: bounds, ends, and what it can't do and therefore refuses."""

from __future__ import annotations

import gc
import io
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from conformance.hosted import HostedSandbox, configuration, guest_box, outer_box, stage_of
from immure import PIPE, BoxLost, ExecFailed, Sandbox
from immure.channel.blocking import ThreadDriver
from immure.errors import SetupFailed
from immure.host.tree import below
from immure.plan.filters import compile_filters
from immure.plan.launch import Launch
from immure.policy.seccomp import parse_profile
from immure.runtimes.guest.box import GuestBox

from .guests import NOWHERE, PRIVATE, eventually, face_of

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(120)]

MIB = 1 << 20
#: What the design allows for one stream.
BOUND_KIB = 8 * 1024


@pytest.fixture
def box() -> Iterator[HostedSandbox]:
    with HostedSandbox() as made:
        yield made


def private_kib(pid: int | str) -> int:
    """What of a process's memory is its own, as it never was larger: what it has written to stays its own."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon:"))


class TestBounds:
    def test_a_flood_for_a_slow_reader_is_kept_by_nobody(self, box: HostedSandbox) -> None:
        size = 1 << 30
        process = box.start(["head", "-c", str(size), "/dev/zero"])
        process.stdout.read(1)
        gc.collect()
        here, there = private_kib("self"), private_kib(box._box.pid)
        most_here = most_there = read = 0
        buffer = bytearray(MIB)
        while count := process.stdout.readinto(buffer):
            read += count
            if read < 32 * MIB:
                time.sleep(0.01)
            most_here = max(most_here, private_kib("self") - here)
            most_there = max(most_there, private_kib(box._box.pid))
        assert read == size - 1
        assert process.wait().exit.code == 0
        assert most_here < BOUND_KIB
        assert most_there < BOUND_KIB, there
        # The control: what somebody keeps is seen.
        kept = box.start(["head", "-c", str(32 * MIB), "/dev/zero"]).stdout.read()
        assert private_kib("self") - here > 24 * 1024, len(kept)

    def test_a_command_that_reads_nothing_stops_its_writer(self, box: HostedSandbox) -> None:
        assert box.exec(["mkfifo", "/tmp/go"]).ok
        process = box.start(["/bin/sh", "-c", "read -r go </tmp/go; wc -c"], stdin=PIPE)
        assert process.stdin is not None
        fd = process.stdin.fileno()
        os.set_blocking(fd, False)
        written = 0
        while written < 100 * MIB and (count := put_in_a_moment(fd, bytes(MIB))):
            written += count
        # Two pipes and a window, and not what there was to write.
        assert written < BOUND_KIB * 1024
        assert private_kib(box._box.pid) < BOUND_KIB
        box.exec(["/bin/sh", "-c", "echo > /tmp/go"])
        process.stdin.close()
        assert int(process.wait().stdout) == written

    def test_a_hundred_streams_at_once(self, box: HostedSandbox) -> None:
        content = [os.urandom(300_000) for _ in range(100)]
        found: dict[int, bytes] = {}

        def one(number: int) -> None:
            found[number] = bytes(box.exec(["cat"], stdin=content[number]).stdout)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found[number] == content[number] for number in range(100)] == [True] * 100

    def test_more_streams_than_a_process_has_descriptors_for(self) -> None:
        """Of those that a process has at first, three for each; and commands have as many as elsewhere."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
        with HostedSandbox(pids=2000, protections={"pids": "best_effort"}) as box:
            before = box.exec(["/bin/sh", "-c", "ulimit -n"]).stdout
            processes = [box.start(["cat"], stdin=PIPE) for _ in range(400)]
            assert box.exec(["/bin/sh", "-c", "ulimit -n"]).stdout == before
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"x")
                process.stdin.close()
            assert all(process.wait().stdout == b"x" for process in processes)

    def test_streams_that_end_while_others_begin(self, box: HostedSandbox) -> None:
        """A guest says nothing of one that is over, in whatever order things happen: the host would not have it."""
        outcomes: list[bytes] = []

        def one() -> None:
            for _ in range(40):
                gone = box.start(["/bin/sh", "-c", "sleep 1; wc -c"], stdin=PIPE)
                box.exec(["true"])
                gone.close()
                process = box.start(["/bin/sh", "-c", "read x; wc -c"], stdin=PIPE)
                assert process.stdin is not None
                process.stdin.write(b"x\n" + bytes(30_000))
                process.stdin.close()
                outcomes.append(bytes(process.wait().stdout))

        threads = [threading.Thread(target=one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == [b"30000\n"] * 160

    def test_one_stream_that_nobody_reads_holds_up_no_other(self, box: HostedSandbox) -> None:
        stuck = [box.start(["yes"]) for _ in range(20)]
        for process in stuck:
            process.stdout.peek(1)
        assert box.exec(["head", "-c", "10000000", "/dev/zero"]).usage.stdout_bytes == 10_000_000
        assert box.exec(["cat"], stdin=bytes(3 * MIB)).usage.stdout_bytes == 3 * MIB
        for process in stuck:
            process.close()


def put(fd: int, data: bytes) -> int:
    """How much of it there was room for."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0


def put_in_a_moment(fd: int, data: bytes) -> int:
    """The same, where there may be room within a moment that is long for two processes that do nothing else."""
    deadline = time.monotonic() + 1
    while not (count := put(fd, data)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return count


class TestCommands:
    def test_arguments_of_more_than_a_mebibyte(self, box: HostedSandbox) -> None:
        words = ["x" * 100_000] * 15
        assert box.exec(["/bin/sh", "-c", 'echo $# "$*" | wc -c', "sh", *words]).stdout.text().split() == ["1500018"]
        with pytest.raises(ExecFailed, match="Argument list too long"):
            box.exec(["true", "x" * (1 << 17)])
        assert box.exec(["true"]).ok

    def test_all_that_was_written_before_the_end_is_collected(self, box: HostedSandbox) -> None:
        for size in (1, 65_536, 65_537, 300_000, 3_000_000):
            result = box.exec(["/bin/sh", "-c", f"head -c {size} /dev/zero; head -c {size} /dev/zero >&2; exit 7"])
            assert (result.exit.code, len(result.stdout), len(result.stderr)) == (7, size, size)

    def test_what_orphans_write_is_not_waited_for(self, box: HostedSandbox) -> None:
        result = box.exec(["/bin/sh", "-c", "echo first; (sleep 300; echo late) & exit 0"])
        assert (result.exit.code, result.stdout) == (0, b"first\n")
        flood = box.exec(["/bin/sh", "-c", "yes & sleep 0.1; exit 5"], output_mib=4000)
        assert flood.exit.code == 5

    def test_a_killed_command_that_nobody_reads_is_heard_of(self, box: HostedSandbox) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            process = box.start(["yes"])
            process.stdout.peek(1)
            process.signal(number)
            assert process.wait().exit.signal == number

    @pytest.mark.parametrize(("size", "code"), [(100_000, 0), (500_000, 5)])
    def test_an_end_is_heard_of_though_nobody_reads(self, box: HostedSandbox, size: int, code: int) -> None:
        """More is under way than the caller's pipe holds, or than it has said it has room for; all of it comes."""
        script = f"trap 'exit 5' TERM; head -c {size} /dev/zero & wait"
        process = box.start(["/bin/sh", "-c", script])
        process.stdout.peek(1)
        time.sleep(0.2)
        process.signal(signal.SIGTERM)
        assert process.wait().exit.code == code
        assert len(process.stdout.read()) == size
        # And who comes late to collect it misses nothing.
        late = box.start(["/bin/sh", "-c", f"head -c {size} /dev/zero; head -c {size} /dev/zero >&2"])
        time.sleep(0.2)
        result = late.wait()
        assert (result.exit.code, len(result.stdout), len(result.stderr)) == (0, size, size)

    def test_who_asks_again_and_again_hears_the_same(self, box: HostedSandbox) -> None:
        process = box.start(["/bin/sh", "-c", "head -c 500000 /dev/zero; exit 4"])
        assert eventually(lambda: process.poll() is not None)
        assert process.poll() is process.wait()
        assert (process.wait().exit.code, len(process.wait().stdout)) == (4, 500_000)

    def test_memory_and_time_of_a_command_are_told(self, box: HostedSandbox) -> None:
        program = "import time\nx = bytearray(50_000_000)\nwhile time.process_time() < 0.2: pass"
        usage = box.exec(["/usr/bin/python3", "-ISc", program]).usage
        assert usage.cpu_ms >= 190
        assert usage.memory_peak_bytes > 50_000_000

    def test_orphans_are_reaped(self, box: HostedSandbox) -> None:
        box.exec(["/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do (sleep 0.01 &) ; done"])
        assert eventually(lambda: not below(box._box.pid))

    def test_a_terminal_is_told_of_its_first_and_its_next_size(self, box: HostedSandbox) -> None:
        script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.01; done"
        process = box.start(["/bin/sh", "-c", script], pty=(90, 33))
        assert process.stdout.readline() == b"33 90\r\n"
        process.resize(200, 60)
        assert process.stdout.read() == b"60 200\r\n"

    def test_every_byte_goes_through_a_terminal_as_typed(self, box: HostedSandbox) -> None:
        """Ours between is no second terminal: what it would change is changed once, by the command's own."""
        process = box.start(["/bin/sh", "-c", "stty raw -echo; echo ready; head -c 256"], pty=True)
        assert process.stdout.read(5) == b"ready"
        process.stdout.read(1)
        every = bytes(range(256))
        assert process.stdin is not None
        process.stdin.write(every)
        assert process.stdout.read() == every


def filters_of(status: Path) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("Seccomp_filters:"))


class TestFilters:
    """Those that commands inherit are a thread's: it starts every command, and the guest itself is not under them."""

    @pytest.fixture(params=[1, 0], ids=["inherited", "installed by each"])
    def inherited(self, request: pytest.FixtureRequest) -> int:
        return request.param

    @pytest.fixture
    def guest(self, inherited: int) -> Iterator[tuple[Sandbox, GuestBox]]:
        with outer_box() as outer:
            stage = stage_of(outer._launch)
            assert (len(stage["filters"]), stage["inherited_filters"]) == (1, 1)
            told = configuration({**stage, "inherited_filters": inherited})
            box = guest_box(outer, outer._launch, ThreadDriver, told)
            box.ready()
            yield outer, box
            box.close()

    def test_commands_have_them_either_way(self, guest: tuple[Sandbox, GuestBox], inherited: int) -> None:
        outer, box = guest
        face = face_of(outer, box)
        threads = sorted(filters_of(one / "status") for one in Path(f"/proc/{box.pid}/task").iterdir())
        # The outer box's own, and one more.
        assert threads == [1, 2][: 1 + inherited]
        for _ in range(2):
            told = face.exec(["/bin/sh", "-c", "grep Seccomp_filters: /proc/self/status"]).stdout
            assert told == b"Seccomp_filters:\t2\n"

    def test_what_they_end_ends_alone(self, inherited: int) -> None:
        deadly = compile_filters(
            parse_profile(
                msgspec.json.encode(
                    {
                        "defaultAction": "SCMP_ACT_ALLOW",
                        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
                    }
                ),
                source="deadly",
            ),
            arch=os.uname().machine,
            kernel=(6, 1),
            keep=0,
        )
        with outer_box() as outer:
            stage = {**stage_of(outer._launch), "filters": deadly.programs, "inherited_filters": inherited}
            box = guest_box(outer, outer._launch, ThreadDriver, configuration(stage))
            box.ready()
            face = face_of(outer, box)
            for _ in range(3):
                assert face.exec(["mkdir", "/tmp/a"]).exit.signal == signal.SIGSYS
                assert face.exec(["true"]).ok
            box.close()


class TestEnds:
    def test_with_the_channel_ends_everything(self) -> None:
        with outer_box() as outer:
            box = guest_box(outer, outer._launch, ThreadDriver)
            box.ready()
            face = face_of(outer, box)
            running = face.start(["/bin/sh", "-c", "trap '' TERM HUP; setsid sleep 300 & sleep 300 & wait"])
            assert eventually(lambda: len(below(box.pid)) == 3)
            pump = box._bridge.pump
            with pump.lock:
                pump.end(BoxLost("lost"))
            assert eventually(lambda: box.pid not in below(outer._box.pid))
            assert eventually(lambda: not below(outer._box.pid))
            with pytest.raises(BoxLost):
                face.exec(["true"])
            running.close()
            box.close()

    def test_a_guest_that_is_killed(self, box: HostedSandbox) -> None:
        process = box.start(["sleep", "300"])
        os.kill(box._box.pid, signal.SIGKILL)
        with pytest.raises(BoxLost):
            process.wait()
        with pytest.raises(BoxLost):
            box.exec(["true"])

    def test_a_file_that_did_not_come_whole_takes_no_place(self, tmp_path: Path) -> None:
        """Its content comes through a pipe, whose end must not be taken for that of the content."""
        with outer_box(disk_mib=2000) as outer:
            box = guest_box(outer, outer._launch, ThreadDriver)
            box.ready()
            face = face_of(outer, box)
            face.files.write("/tmp/a", b"old")
            # The control: one that comes whole does.
            face.files.write("/tmp/b", b"old")
            face.files.write("/tmp/b", b"new")
            source = tmp_path / "large"
            with source.open("wb") as file:
                file.truncate(1 << 30)
            writing = threading.Thread(target=lost, args=(face, source))
            writing.start()
            assert eventually(lambda: any(one.size_bytes > MIB for one in outer.files.list("/tmp")))
            pump = box._bridge.pump
            with pump.lock:
                pump.end(BoxLost("lost"))
            writing.join()
            assert eventually(lambda: box.pid not in below(outer._box.pid))
            assert (outer.files.read("/tmp/a"), outer.files.read("/tmp/b")) == (b"old", b"new")
            box.close()

    def test_one_byte_at_a_time(self) -> None:
        with outer_box() as outer, SlowBox(outer, outer._launch) as box:
            face = face_of(outer, box)
            result = face.exec(["/bin/sh", "-c", "cat; echo err >&2; exit 3"], stdin=b"in\n" * 100)
            assert (result.exit.code, result.stdout, result.stderr) == (3, b"in\n" * 100, b"err\n")

    def test_a_source_that_breaks_is_no_end(self, box: HostedSandbox) -> None:
        class Broken(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                raise OSError("the disk is gone")

        box.files.write("/tmp/a", b"old")
        with pytest.raises(OSError, match="gone"):
            box.files.write("/tmp/a", Broken())
        assert box.files.read("/tmp/a") == b"old"


def lost(face: Sandbox, source: Path) -> None:
    with pytest.raises(BoxLost):
        face.files.write("/tmp/a", source)


class SlowBox:
    """A box behind a guest, between which every byte goes by itself."""

    def __init__(self, outer: Sandbox, launch: Launch) -> None:
        self._command = outer.start(["/opt/immure-init", "guest", "0", "1"], stdin=PIPE)
        self._ours, theirs = socket.socketpair()
        assert self._command.stdin is not None
        ends = ((theirs.fileno(), self._command.stdin.fileno()), (self._command.stdout.fileno(), theirs.fileno()))
        self._threads = [threading.Thread(target=trickle, args=both, daemon=True) for both in ends]
        self._theirs = theirs
        for thread in self._threads:
            thread.start()
        receives, sends = os.dup(self._ours.fileno()), os.dup(self._ours.fileno())
        self.box = GuestBox(
            receives, sends, launch, lambda: configuration(stage_of(launch)), pid=0, drive=ThreadDriver, end=self._end
        )

    def _end(self) -> None:
        self._command.kill()
        self._theirs.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._command.close()
        self._ours.close()
        self._theirs.close()

    def __enter__(self) -> GuestBox:
        self.box.ready()
        return self.box

    def __exit__(self, *_: object) -> None:
        self.box.close()


def trickle(source: int, target: int) -> None:
    try:
        while data := os.read(source, 1 << 16):
            for byte in data:
                os.write(target, bytes([byte]))
    except OSError:
        pass


def refused(outer: Sandbox, config: bytes) -> SetupFailed:
    box = guest_box(outer, outer._launch, ThreadDriver, config)
    try:
        with pytest.raises(SetupFailed) as caught:
            box.ready()
        return caught.value
    finally:
        box.close()


def with_root(outer: Sandbox, operations: list[dict[str, Any]], **more: Any) -> bytes:
    plain = msgspec.msgpack.decode(configuration(stage_of(outer._launch)))
    return msgspec.msgpack.encode({**plain, "root": operations, **more})


class TestWithoutPrivileges:
    """What a guest is told to do and can't is an error, and nothing is left out."""

    def test_the_control(self) -> None:
        with outer_box() as outer:
            box = guest_box(outer, outer._launch, ThreadDriver, configuration(stage_of(outer._launch)))
            assert box.ready() == {}
            box.close()

    @pytest.mark.parametrize(
        ("change", "step"),
        [
            ({"known_capabilities": 1 << 21}, "capabilities"),
            ({"securebits": 0xC3}, "capabilities"),
            ({"filters": [bytes(8)], "inherited_filters": 1}, "seccomp"),
            ({"listener_flags": 8}, "seccomp"),
            ({"surprise": 1}, "plan"),
            ({"umask": None}, "plan"),
        ],
        ids=str,
    )
    def test_a_stage_that_it_can_not_apply(self, change: dict[str, Any], step: str) -> None:
        outer = outer_box()
        assert refused(outer, configuration({**stage_of(outer._launch), **change})).step == step

    def test_groups_that_it_can_not_drop(self) -> None:
        outer = outer_box()
        error = refused(outer, configuration(stage_of(outer._launch), drop_groups=True))
        assert (error.step, error.errno) == ("identity", 1)

    def test_landlock_s_rules_that_it_can_not_look_up(self) -> None:
        outer = outer_box()
        landlock = msgspec.msgpack.decode(outer._launch.wire)["landlock"]
        error = refused(outer, configuration(stage_of(outer._launch), {**landlock, "rules": [NOWHERE]}))
        assert (error.step, error.errno) == ("landlock", 2)

    def test_landlock_s_rules_without_openat2(self) -> None:
        """The box around it lacks that call, as some kernels do."""
        with outer_box() as outer:
            landlock = msgspec.msgpack.decode(outer._launch.wire)["landlock"]
            rules = [rule for rule in landlock["rules"] if rule["path"] != "/etc"]
            config = configuration(stage_of(outer._launch), {**landlock, "rules": rules})
            box = guest_box(outer, outer._launch, ThreadDriver, config)
            try:
                box.ready()
                assert outer.exec(["cat", "/etc/passwd"]).ok
                face = face_of(outer, box)
                assert face.exec(["true"]).ok
                assert b"Permission denied" in face.exec(["cat", "/etc/passwd"]).stderr
            finally:
                box.close()

    def test_a_root_that_it_can_not_make(self) -> None:
        """It is no root of its box."""
        error = refused(outer := outer_box(), with_root(outer, [PRIVATE]))
        assert (error.step, error.errno) == ("tmpfs", 1)

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "hide", "path": "/proc/keys", "cover": "/dev/null"},
            {"op": "freeze", "path": "/proc/sys", "attributes": 15},
            {"op": "user_mount", "source": "/tmp", "path": "/x", "attributes": 0},
            {"op": "loopback"},
        ],
    )
    def test_what_is_not_a_guest_s_to_make(self, operation: dict[str, Any]) -> None:
        error = refused(outer := outer_box(), with_root(outer, [operation]))
        assert (error.step, error.errno) == ("root", 22)

    def test_groups_to_drop_where_it_has_ids_of_its_own(self) -> None:
        outer = outer_box()
        own = msgspec.msgpack.decode(configuration(stage_of(outer._launch), drop_groups=True))
        error = refused(outer, msgspec.msgpack.encode({**own, "own_ids": {"user": 1, "group": 1}}))
        assert (error.step, error.errno) == ("identity", 22)

    def test_a_user_that_it_can_not_be(self, box: HostedSandbox) -> None:
        with pytest.raises(ExecFailed):
            box.exec(["true"], user=0)
        assert box.exec(["true"], user=1000).ok

    def test_filters_and_umask_are_the_command_s(self, box: HostedSandbox) -> None:
        status = box.exec(["/bin/sh", "-c", "umask; grep -E 'NoNewPrivs|Seccomp_filters' /proc/self/status"])
        # One of the box around it, and one of its own.
        assert status.stdout.text().split() == ["0022", "NoNewPrivs:", "1", "Seccomp_filters:", "2"]
