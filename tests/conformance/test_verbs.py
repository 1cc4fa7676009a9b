"""Every verb of a box that stays, over each face and runtime, as root and as a plain user."""

from __future__ import annotations

import gc
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immure import PIPE, BoxError, BoxLost, ExecFailed, RuntimeUnavailable, SpecError, run
from immure.engine.log import Logs

from .faces import FACES, OLD_SENTRY, PATIENCE_S, BlockingBox, BlockingProcess, blocking, has_kernel

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(PATIENCE_S)]


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def box(face: str) -> Iterator[BlockingBox]:
    assert run(["true"]).ok
    before = open_files()
    with blocking(face) as made:
        yield made
        # What the test let go of is let go of.
        gc.collect()
        assert settles(lambda: names(made) == []), "something is left in the box"
    gc.collect()
    assert settles(lambda: open_files() <= before), "descriptors are left open"


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def is_at_rest(box: BlockingBox) -> bool:
    """Whether nothing computes in it. A kernel has work of its own now and then, and none all the time."""
    for _ in range(20 if has_kernel(box.face) else 1):
        before = box.box.stats().cpu_ms
        time.sleep(0.1)
        if box.box.stats().cpu_ms == before:
            return True
    return False


#: Processes but the first, the shell itself and who started it. A kernel of the box's own shows its threads, too:
#: PF_KTHREAD, the seventh word after the name. proc_pid_stat(5).
OTHERS = """
for folder in /proc/[0-9]*; do
  pid=${folder#/proc/}
  case $pid in 1|$$|$PPID) continue;; esac
  read -r stat < $folder/stat || continue
  set -- ${stat##*) }
  [ $(($7 & 0x200000)) != 0 ] || echo $pid
done
"""


def names(box: BlockingBox) -> list[str]:
    """Processes of the box beside its first, the one that looks, and the one that started that."""
    deadline = time.monotonic() + 5
    while True:
        left = box.exec(sh(OTHERS)).stdout.text().split()
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)


UNDER_WAY: dict[str, Callable[[BlockingProcess], object]] = {
    "wait": lambda process: process.wait(),
    "read": lambda process: process.read(),
    "readline": lambda process: process.readline("stderr"),
    "write": lambda process: process.write(bytes(1 << 20)),
}


def attempt(use: Callable[[BlockingProcess], object], process: BlockingProcess, outcome: list[object]) -> None:
    try:
        outcome.append(use(process))
    except Exception as error:
        outcome.append(error)


def settles(condition: object) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


class TestExec:
    def test_status_output_and_errors(self, box: BlockingBox) -> None:
        result = box.exec(sh("echo out; echo err >&2; exit 3"))
        assert (result.exit.kind, result.exit.code) == ("exited", 3)
        assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
        assert box.exec(sh("kill -USR1 $$")).exit.signal == signal.SIGUSR1

    def test_input_environment_folder_and_user(self, box: BlockingBox) -> None:
        assert box.exec(["cat"], stdin=b"\x00in\xff" * 9).stdout == b"\x00in\xff" * 9
        assert box.exec(sh("echo $A $HOME; pwd"), env={"A": "b"}, workdir="/usr").stdout == b"b /tmp\n/usr\n"
        assert box.exec(["id", "-u"]).stdout == b"1000\n"

    def test_limits_of_one_command(self, box: BlockingBox) -> None:
        assert box.exec(["sleep", "50"], timeout_s=0.2).exit.kind == "timeout"
        flood = box.exec(["yes"], output_mib=0.5)
        assert (flood.exit.kind, flood.truncated.stdout, len(flood.stdout)) == ("output", True, 1 << 19)
        assert box.exec(["true"]).ok

    def test_what_can_not_be_started(self, box: BlockingBox) -> None:
        for argv, status in ((["no-such-command"], 127), (["/etc"], 126)):
            with pytest.raises(ExecFailed) as caught:
                box.exec(argv)
            assert caught.value.exit_status == status
        with pytest.raises(SpecError):
            box.exec([])

    def test_many_at_once(self, box: BlockingBox) -> None:
        found: dict[int, bytes] = {}

        def one(number: int) -> None:
            found[number] = bytes(box.exec(sh(f"sleep 0.05; echo {number}")).stdout)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {number: f"{number}\n".encode() for number in range(40)}


class TestStart:
    def test_a_conversation(self, box: BlockingBox) -> None:
        process = box.start(["cat"], stdin=PIPE)
        for word in (b"one\n", b"two\n"):
            process.write(word)
            assert process.readline() == word
        process.end_input()
        assert process.read() == b""
        assert process.wait().exit.code == 0

    def test_output_as_it_comes(self, box: BlockingBox) -> None:
        process = box.start(sh("for i in 1 2 3; do echo $i; sleep 0.1; done; echo err >&2; exit 4"))
        assert process.readline() == b"1\n"
        # It is there while the command runs.
        assert has_kernel(box.face) or box.box.stats().processes > 0
        assert process.read() == b"2\n3\n"
        result = process.wait()
        # What was asked for is the reader's; the rest is collected.
        assert (result.exit.code, result.stdout, result.stderr) == (4, b"", b"err\n")
        assert result.usage.stdout_bytes == 6

    def test_wait_collects_what_nobody_asked_for(self, box: BlockingBox) -> None:
        size = 3 << 20
        result = box.start(sh(f"head -c {size} /dev/zero; head -c {size} /dev/zero >&2")).wait()
        assert (len(result.stdout), len(result.stderr)) == (size, size)

    def test_wait_again_gives_the_same(self, box: BlockingBox) -> None:
        process = box.start(sh("exit 5"))
        assert process.wait() is process.wait()

    def test_what_is_there_is_read_to_its_end_after_the_end(self, box: BlockingBox) -> None:
        process = box.start(sh("echo late"))
        stream = process.read("stderr")
        assert stream == b""
        assert process.wait().stdout == b"late\n"

    def test_a_stream_that_nobody_reads_stops_the_command(self, box: BlockingBox) -> None:
        process = box.start(sh("head -c 10000000 /dev/zero; echo done >&2"))
        assert process.read(size=10) == bytes(10)
        time.sleep(0.2)
        # Not done: the pipe is full.
        assert not process.process._attendance.exit
        rest = process.read()
        assert len(rest) == 10_000_000 - 10
        assert process.wait().stderr == b"done\n"

    def test_a_writer_that_nobody_reads_waits(self, box: BlockingBox) -> None:
        process = box.start(sh("sleep 0.2; wc -c"), stdin=PIPE)
        process.write(bytes(1 << 20))
        process.end_input()
        assert process.wait().stdout.strip() == b"1048576"

    def test_writing_to_one_that_reads_no_more(self, box: BlockingBox) -> None:
        process = box.start(["true"], stdin=PIPE)
        with pytest.raises(BrokenPipeError):
            for _ in range(100):
                process.write(bytes(1 << 16))
        assert process.wait().exit.code == 0

    def test_signals(self, box: BlockingBox) -> None:
        process = box.start(sh("trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.01; done"))
        assert process.readline() == b"ready\n"
        process.signal(signal.SIGUSR1)
        assert process.readline() == b"got\n"
        assert process.wait().exit.code == 9
        # Too late for anybody.
        process.signal(signal.SIGKILL)
        assert box.exec(["true"]).ok

    def test_kill_takes_the_group_along(self, box: BlockingBox) -> None:
        process = box.start(sh("sleep 300 & echo started; wait"))
        assert process.readline() == b"started\n"
        process.kill()
        assert process.wait().exit.signal == signal.SIGKILL

    def test_leaving_ends_it(self, box: BlockingBox) -> None:
        process = box.start(sh("sleep 300 & echo started; sleep 300"))
        assert process.readline() == b"started\n"
        process.close()
        process.close()
        with pytest.raises(ValueError, match="closed"):
            process.wait()

    def test_leaving_under_others_who_wait(self, box: BlockingBox) -> None:
        """They are told at once, whatever they wait for."""
        for name, use in UNDER_WAY.items():
            process = box.start(["sleep", "300"], stdin=PIPE)
            outcome: list[object] = []
            thread = threading.Thread(target=attempt, args=(use, process, outcome), daemon=True)
            thread.start()
            # Long enough to be in the midst of it, most times. Before or after it is told likewise.
            time.sleep(0.05)
            process.close()
            thread.join(10)
            assert len(outcome) == 1, f"it hangs in {name}"
            assert isinstance(outcome[0], ValueError if name == "wait" else (ValueError, OSError, bytes)), (
                name,
                outcome,
            )
            assert box.exec(["true"]).ok

    def test_a_deadline_that_nobody_waits_for(self, box: BlockingBox) -> None:
        process = box.start(["sleep", "300"], timeout_s=0.2)
        assert process.read() == b""
        assert process.wait().exit.kind == "timeout"
        waited = box.start(["sleep", "300"], timeout_s=0.2)
        assert waited.wait().exit.kind == "timeout"

    def test_a_limit_of_output_that_is_read(self, box: BlockingBox) -> None:
        process = box.start(["yes"], output_mib=0.25)
        assert len(process.read()) == 1 << 18
        result = process.wait()
        assert (result.exit.kind, result.truncated.stdout) == ("output", True)

    def test_a_flood_that_is_only_waited_for_is_bounded(self, box: BlockingBox) -> None:
        result = box.start(["yes"]).wait()
        assert (result.exit.kind, len(result.stdout)) == ("output", 16 << 20)

    def test_what_can_not_be_started(self, box: BlockingBox) -> None:
        for argv, status in ((["no-such-command"], 127), (["/etc"], 126)):
            with pytest.raises(ExecFailed) as caught:
                box.start(argv)
            assert caught.value.exit_status == status
        with pytest.raises(ExecFailed):
            box.start(["true"], workdir="/no/such/folder", stdin=PIPE)
        with pytest.raises(SpecError):
            box.start(["true"], stdin=7)

    def test_a_box_that_ends_under_it(self, face: str) -> None:
        with blocking(face) as box:
            process = box.start(["sleep", "300"])
            box.close()
            with pytest.raises(BoxLost):
                process.wait()
            with pytest.raises(BoxLost):
                process.wait()
            with pytest.raises(BoxLost):
                box.start(["true"])

    def test_two_hundred_at_once(self, box: BlockingBox) -> None:
        # A caller takes eight descriptors for each behind a channel, and plain users have few unless they ask for more.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
        processes = [box.start(["cat"], stdin=PIPE) for _ in range(200)]
        for number, process in enumerate(processes):
            process.write(f"{number}".encode())
        for process in processes:
            process.end_input()
        assert [int(process.wait().stdout) for process in processes] == list(range(200))


def typed(process: BlockingProcess, line: bytes) -> None:
    process.write(line + b"\n")


class TestTerminals:
    def test_it_is_one(self, box: BlockingBox) -> None:
        program = (
            "import os, sys; print(all(os.isatty(fd) for fd in (0, 1, 2)), os.get_terminal_size(), os.environ['TERM'])"
        )
        process = box.start(["/usr/bin/python3", "-ISc", program], pty=(100, 30))
        assert process.read() == b"True os.terminal_size(columns=100, lines=30) xterm-256color\r\n"
        assert process.wait().exit.code == 0
        assert (
            box.start(["/usr/bin/python3", "-ISc", program.replace("os.get_terminal_size()", "0")], env={"TERM": "x"})
            .wait()
            .stdout
            == b"False 0 x\n"
        )

    def test_typing_is_echoed_and_read(self, box: BlockingBox) -> None:
        process = box.start(sh("read -r word; echo got $word"), pty=True)
        typed(process, b"abc")
        assert process.read() == b"abc\r\ngot abc\r\n"
        assert process.wait().exit.code == 0

    def test_control_characters_are_signals_to_the_foreground(self, box: BlockingBox) -> None:
        process = box.start(sh("trap 'echo int; exit 7' INT; echo ready; while :; do sleep 0.01; done"), pty=True)
        assert process.readline() == b"ready\r\n"
        process.write(b"\x03")
        assert process.wait().exit.code == 7

    def test_it_has_a_name_that_leads_to_it(self, box: BlockingBox) -> None:
        """As programs need it that ask for a passphrase, or make terminals of their own."""
        process = box.start(sh('tty; echo by its name > "$(tty)"; stat -c %U "$(tty)"'), pty=True)
        assert process.read() == b"/dev/pts/0\r\nby its name\r\nuser\r\n"
        assert process.wait().exit.code == 0

    def test_a_new_size_is_told(self, box: BlockingBox) -> None:
        process = box.start(sh("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"), pty=True)
        assert process.readline() == b"ready\r\n"
        process.resize(132, 50)
        assert process.read() == b"50 132\r\n"
        assert process.wait().exit.code == 0
        without = box.start(["cat"], stdin=PIPE)
        with pytest.raises(ValueError, match="no terminal"):
            without.resize(1, 1)
        without.close()

    def test_sizes_that_there_are_not(self, box: BlockingBox) -> None:
        for size in ((0, 24), (80, 0), (70000, 24), (-1, 5)):
            with pytest.raises(SpecError):
                box.start(["true"], pty=size)

    def test_it_controls_its_session(self, box: BlockingBox) -> None:
        """Which /dev/tty stands for, and whose end ends it."""
        process = box.start(sh("echo to the terminal > /dev/tty"), pty=True)
        said = process.read()
        assert b"error" in said if box.face == OLD_SENTRY else said == b"to the terminal\r\n"
        hung = box.start(sh("trap 'exit 3' HUP; echo ready; while :; do sleep 0.01; done"), pty=True)
        assert hung.readline() == b"ready\r\n"
        hung.close()


class TestStats:
    def test_what_runs_is_counted(self, box: BlockingBox) -> None:
        if has_kernel(box.face):
            stats = box.box.stats()
            assert (stats.processes, stats.threads) == (None, None)
            assert stats.resident_bytes > 1 << 20
            return
        # The process that was inspected is on its way out.
        assert settles(lambda: box.box.stats().processes == 0)
        process = box.start(sh("sleep 300 & sleep 300 & echo ready; wait"))
        assert process.readline() == b"ready\n"
        stats = box.box.stats()
        assert (stats.processes, stats.threads) == (3, 3)
        assert stats.resident_bytes > 1 << 19
        process.kill()
        process.wait()
        assert settles(lambda: box.box.stats().processes == 0)

    def test_time_of_what_has_ended_counts(self, box: BlockingBox) -> None:
        before = box.box.stats().cpu_ms
        process = box.start(sh("while :; do :; done"))
        # By this host's clock: one of the box's own counts what a busy host has meanwhile given to others.
        assert settles(lambda: box.box.stats().cpu_ms - before >= 290)
        process.kill()
        process.wait()
        assert box.box.stats().cpu_ms - before >= 290

    def test_a_closed_box_has_none(self, face: str) -> None:
        with blocking(face) as box:
            box.close()
            with pytest.raises(BoxLost):
                box.box.stats()


class TestPause:
    def test_nothing_runs_until_it_goes_on(self, box: BlockingBox) -> None:
        program = "import time\nn = 0\nwhile True:\n n += 1\n open('/tmp/n', 'w').write(str(n))"
        busy = box.start(["/usr/bin/python3", "-ISc", program])
        assert settles(lambda: box.box.stats().cpu_ms > 50)
        box.pause()
        assert (box.box.paused, box.box.state) == (True, "paused")
        assert is_at_rest(box)
        before = box.box.stats().cpu_ms
        box.resume()
        assert settles(lambda: box.box.stats().cpu_ms > before + 20)
        busy.kill()
        assert busy.wait().exit.signal == signal.SIGKILL

    def test_forks_without_end_are_stopped_too(self, face: str) -> None:
        with blocking(face, pids=60, protections={"pids": "best_effort"}) as box:
            bomb = box.start(sh("bomb() { bomb | bomb & }; bomb; while :; do :; done 2>/dev/null"))
            time.sleep(0.2)
            for _ in range(5):
                box.pause()
                before = box.box.stats()
                assert is_at_rest(box)
                assert box.box.stats().processes == before.processes
                box.resume()
                time.sleep(0.02)
            bomb.close()

    def test_one_that_waits_for_its_child_s_execve_is_at_rest(self, box: BlockingBox) -> None:
        busy = box.start(sh("while :; do /bin/true; done"))
        for _ in range(20):
            time.sleep(0.01)
            box.pause()
            box.resume()
        busy.kill()
        busy.wait()

    def test_what_is_asked_of_a_paused_box_is_refused(self, box: BlockingBox) -> None:
        box.pause()
        for call in (lambda: box.exec(["true"]), lambda: box.start(["true"]), lambda: box.files.read("/etc/passwd")):
            with pytest.raises(BoxError, match="paused"):
                call()
        box.pause()
        box.resume()
        assert box.exec(["true"]).ok
        box.resume()

    def test_a_paused_box_ends_like_any(self, face: str) -> None:
        with blocking(face) as box:
            box.start(["sleep", "300"])
            box.pause()

    def test_time_goes_on(self, box: BlockingBox) -> None:
        process = box.start(["sleep", "300"], timeout_s=0.3)
        box.pause()
        assert process.wait().exit.kind == "timeout"
        box.resume()

    # Such a box has one user, which a guest in it can't change; `tests/channel/test_guest.py` has what it says of that.
    @pytest.mark.parametrize("face", ["sync", "async"])
    def test_a_box_without_a_pid_namespace_can_not_be(self, face: str) -> None:
        with blocking(face, level="L1", namespaces="none") as box:
            with pytest.raises(RuntimeUnavailable):
                box.pause()
            assert box.exec(["true"]).ok


class TestKill:
    def test_it_ends_the_box_under_who_waits(self, face: str) -> None:
        with blocking(face) as box:
            process = box.start(["sleep", "300"])
            assert box.box.state == "ready"
            box.box.kill()
            assert box.box.state == "stopped"
            with pytest.raises(BoxLost):
                process.wait()
            with pytest.raises(BoxLost):
                box.exec(["true"])
            box.box.kill()
            box.close()
            box.box.kill()
            assert box.box.state == "removed"


def told(logs: Logs) -> list[tuple[int, str, str]]:
    return [(one.command, one.stream, one.text()) for one in logs.entries]


class TestLogs:
    def test_what_commands_did_and_wrote(self, box: BlockingBox) -> None:
        began = time.time()
        box.exec(sh("echo out; sleep 0.05; echo err >&2; exit 3"))
        box.exec(sh("kill -USR1 $$"))
        logs = box.box.logs()
        assert told(logs) == [
            (1, "started", "/bin/sh -c 'echo out; sleep 0.05; echo err >&2; exit 3'"),
            (1, "stdout", "out\n"),
            (1, "stderr", "err\n"),
            (1, "ended", "exited 3"),
            (2, "started", "/bin/sh -c 'kill -USR1 $$'"),
            (2, "ended", "signaled 10"),
        ]
        assert logs.output() == b"out\nerr\n"
        assert logs.dropped_bytes == 0
        times = [began, *(one.time_s for one in logs.entries), time.time()]
        assert times == sorted(times)

    def test_output_is_there_while_its_command_runs(self, box: BlockingBox) -> None:
        """Whether it is read as it comes, or only waited for."""
        read = box.start(["cat"], stdin=PIPE)
        read.write(b"one")
        assert read.read(size=3) == b"one"
        assert told(box.box.logs(command=1))[1:] == [(1, "stdout", "one")]
        waited = threading.Thread(target=box.exec, args=(sh("echo two; until [ -e /tmp/go ]; do sleep 0.01; done"),))
        waited.start()
        assert settles(lambda: (2, "stdout", "two\n") in told(box.box.logs()))
        assert (2, "ended", "exited 0") not in told(box.box.logs())
        box.files.write("/tmp/go", b"")
        waited.join()
        assert told(box.box.logs())[-1] == (2, "ended", "exited 0")
        read.close()
        assert told(box.box.logs())[-1] == (1, "ended", "closed")

    def test_a_follower_sees_what_comes(self, box: BlockingBox) -> None:
        process = box.start(["cat"], stdin=PIPE)
        at = box.box.logs().entries[-1].position
        for word in (b"one", b"two"):
            process.write(word)
            assert process.read(size=10) == word
            (entry,) = box.box.log.wait(at, 20).entries
            assert entry.data == word
            at = entry.position
        process.end_input()
        assert process.read() == b""
        assert process.wait().ok
        assert [one.text() for one in box.box.log.wait(at, 20).entries] == ["exited 0"]

    def test_how_commands_end(self, box: BlockingBox) -> None:
        box.exec(["sleep", "50"], timeout_s=0.1)
        box.exec(["yes"], output_mib=0.01)
        for argv in (["no-such-command"], ["/etc"]):
            with pytest.raises(ExecFailed):
                box.exec(argv)
            with pytest.raises(ExecFailed):
                box.start(argv)
        box.start(["true"]).wait()
        box.start(["sleep", "300"])
        gc.collect()
        ends = [text for _, stream, text in told(box.box.logs()) if stream == "ended"]
        refused = ["refused 127"] * 2 + ["refused 126"] * 2
        assert ends == ["timeout", "output", *refused, "exited 0", "closed"]
        # What is past its limit came through nobody.
        assert len(box.box.logs(command=2).output()) == int(0.01 * (1 << 20))

    def test_a_terminal_is_one_stream(self, box: BlockingBox) -> None:
        process = box.start(sh("echo out; echo err >&2"), pty=True)
        assert process.read() == b"out\r\nerr\r\n"
        process.wait()
        assert {stream for _, stream, _ in told(box.box.logs())} == {"started", "stdout", "ended"}
        assert box.box.logs().output() == b"out\r\nerr\r\n"

    def test_the_newest_is_kept(self, box: BlockingBox) -> None:
        box.exec(sh("head -c 3000000 /dev/zero; echo end"))
        logs = box.box.logs()
        kept = sum(len(one.data) for one in logs.entries)
        assert 900_000 < kept <= 1 << 20
        argv = "/bin/sh\0-c\0head -c 3000000 /dev/zero; echo end\0"
        assert kept + logs.dropped_bytes == len(argv) + 3_000_004 + len("exited 0")
        assert logs.output().endswith(b"\0end\n")

    def test_bytes_are_those_of_the_box(self, box: BlockingBox) -> None:
        box.exec(["printf", r"\033[2J\377"])
        (written,) = [one for one in box.box.logs().entries if one.stream == "stdout"]
        assert (written.data, written.text()) == (b"\x1b[2J\xff", "\x1b[2J\ufffd")

    def test_operations_on_files_are_not_in_it(self, box: BlockingBox) -> None:
        box.files.write("/tmp/a", b"x")
        assert box.files.read("/tmp/a") == b"x"
        box.files.mkdir("/tmp/folder")
        assert box.box.logs().entries == ()

    def test_numbers_are_those_of_commands_however_many_run(self, box: BlockingBox) -> None:
        threads = [threading.Thread(target=box.exec, args=(["echo", str(number)],)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        logs = box.box.logs()
        for number in range(1, 21):
            started, written, ended = told(box.box.logs(command=number))
            assert (started[2], ended[2]) == (f"echo {written[2].strip()}", "exited 0")
        assert sorted(logs.output().split()) == sorted(b"%d" % number for number in range(20))

    def test_it_stays_when_the_box_has_ended(self, face: str) -> None:
        with blocking(face, log_mib=0.001) as box:
            process = box.start(["sleep", "300"])
            box.close()
            with pytest.raises(BoxLost):
                process.wait()
            assert told(box.box.logs()) == [(1, "started", "sleep 300"), (1, "ended", "lost")]
        assert len(box.box.logs(tail=1).entries) == 1
        for size in (-1, float("nan"), float("inf")):
            with pytest.raises(SpecError, match="log_mib"), blocking(face, log_mib=size):
                pass
