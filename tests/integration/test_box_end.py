"""The ends of a box: closed, left, dropped, forked away from, and killed from within."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

from immure import BoxLost, Sandbox, run

from .command_line import shell
from .processes import eventually, open_descriptors, running

pytestmark = pytest.mark.rootless


def box_with_a_daemon() -> tuple[Sandbox, int]:
    box = Sandbox()
    assert box.exec(shell("setsid sleep 60 & exit 0")).ok
    pid = box._box.pid
    assert running(pid)
    return box, pid


def test_close_waits_until_all_is_gone() -> None:
    box, pid = box_with_a_daemon()
    box.close()
    assert not running(pid)
    box.close()


def test_leaving_by_an_exception() -> None:
    box, pid = box_with_a_daemon()
    with pytest.raises(ZeroDivisionError), box:
        raise ZeroDivisionError
    assert not running(pid)


def test_nothing_works_after_close() -> None:
    with Sandbox() as box:
        assert box.exec(["true"]).ok
    with pytest.raises(BoxLost) as caught:
        box.exec(["true"])
    assert "closed" in str(caught.value)
    assert caught.value.hint
    assert box.evidence().awarded == "L2", "what was measured stays"


def test_a_box_that_nobody_holds_ends() -> None:
    box, pid = box_with_a_daemon()
    before = set(open_descriptors(os.getpid()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del box
        gc.collect()
    assert eventually(lambda: not running(pid))
    assert len(set(open_descriptors(os.getpid())) - before) == 0


def test_close_from_another_thread_ends_a_running_command() -> None:
    box = Sandbox()
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            box.exec(["sleep", "60"])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.2)
    box.close()
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in failures] == [BoxLost]


def test_closing_from_many_threads() -> None:
    for _ in range(20):
        box = Sandbox()
        threads = [threading.Thread(target=box.close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_a_forked_child_is_refused() -> None:
    with Sandbox() as box:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                box.exec(["true"])
                said = "ran"
            except BoxLost as error:
                said = str(error)
            except BaseException as error:
                said = repr(error)
            os.write(writer, said.encode())
            box.close()
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            said = file.read().decode()
        os.waitpid(pid, 0)
        for part in ("another process", str(os.getpid()), str(pid), "after the fork"):
            assert part in said
        assert box.exec(["true"]).ok, "and the child's close did nothing to it"


def test_a_forked_child_can_make_boxes_of_its_own() -> None:
    with Sandbox() as box:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                with Sandbox() as own:
                    status = 0 if own.exec(["true"]).ok and run(["true"]).ok else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert box.exec(["true"]).ok


def test_a_forked_child_does_not_keep_the_box_of_a_dead_parent_alive() -> None:
    program = (
        "import os, time\nfrom immure import Sandbox\nbox = Sandbox()\n"
        "print(box._box.pid, flush=True)\n"
        "if os.fork() == 0: time.sleep(3); os._exit(0)\n"
        "os.kill(os.getpid(), 9)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.wait(20)
    assert eventually(lambda: not running(pid), within=2)
    process.stdout.close()


def test_the_end_of_the_interpreter_ends_the_boxes() -> None:
    program = "from immure import Sandbox\nbox = Sandbox()\nprint(box._box.pid, flush=True)"
    ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True)
    assert eventually(lambda: not running(int(ended.stdout)))


@pytest.mark.parametrize("how", ["kill -9 1", "kill -9 -1", "kill -STOP 1; kill -9 1", "kill -TERM 1"])
def test_root_of_a_box_can_neither_end_nor_stop_what_holds_it(how: str) -> None:
    """It has the same user as pid 1, which the kernel shields."""
    with Sandbox(user=0) as box:
        assert box.exec(shell(f"{how}; exit 5")).exit.code == 5
        assert box.exec(["true"]).ok
    assert run(shell(f"{how}; exit 5"), user=0).exit.code == 5


def test_pid_1_can_not_be_killed_from_within() -> None:
    with Sandbox(user=0) as box:
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV):
            box.exec(shell(f"kill -{int(number)} 1"))
        assert box.exec(["true"]).ok


def returns_in_time(box: Sandbox, seconds: float) -> list[object]:
    """What a command with a time limit comes to; nothing where it does not end."""
    outcome: list[object] = []

    def attempt() -> None:
        try:
            outcome.append(box.exec(["sleep", "20"], timeout_s=0.3).exit.kind)
        except BoxLost as error:
            outcome.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome


def test_pid_1_can_not_be_stopped_to_outlast_a_time_limit() -> None:
    with Sandbox(user=0) as box:
        assert box.exec(shell("(sleep 0.2; kill -STOP 1) & exit 0")).ok
        time.sleep(0.4)
        assert returns_in_time(box, 8) == ["timeout"]


def test_a_command_that_stops_others_while_they_start_can_not_outlast_a_time_limit() -> None:
    """A command's process is stopped between its change of user and its execve, while the stem waits for it."""
    program = "import os\nwhile True:\n try: os.kill(-1, 19)\n except OSError: pass"
    box = Sandbox()
    hostile = threading.Thread(target=ignoring_loss, args=(box, ["python3", "-c", program]), daemon=True)
    try:
        hostile.start()
        time.sleep(0.3)
        for _ in range(15):
            assert returns_in_time(box, 8), "exec(timeout_s=0.3) must return"
    finally:
        box.close()
        hostile.join(10)


def ignoring_loss(box: Sandbox, argv: list[str]) -> None:
    try:
        box.exec(argv)
    except BoxLost:
        pass
