"""Many commands in one box: one after the other, at once, and beside each other's remains."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from immure import BoxError, Sandbox

from .command_line import python, shell
from .processes import eventually, running

pytestmark = pytest.mark.rootless


def test_files_stay_from_one_command_to_the_next() -> None:
    with Sandbox() as box:
        assert box.exec(shell("echo kept > /tmp/file; echo too > /dev/shm/file")).ok
        assert box.exec(["cat", "/tmp/file", "/dev/shm/file"]).stdout == b"kept\ntoo\n"


def test_background_processes_stay_from_one_command_to_the_next() -> None:
    with Sandbox() as box:
        assert box.exec(shell("sleep 33 & echo $! > /tmp/pid")).ok
        assert box.exec(shell("kill -0 $(cat /tmp/pid)")).ok
        assert box.exec(shell("kill $(cat /tmp/pid)")).ok, "commands of one user can signal each other"


def test_from_sixteen_threads() -> None:
    with Sandbox() as box, ThreadPoolExecutor(16) as pool:

        def one(number: int) -> tuple[bytes, bytes, int | None]:
            script = shell(f"cat; echo {number}; echo e{number} >&2; exit {number % 256}")
            result = box.exec(script, stdin=b"in%d\n" % number, env={"N": str(number)})
            return result.stdout, result.stderr, result.exit.code

        for number, seen in enumerate(pool.map(one, range(320))):
            assert seen == (b"in%d\n%d\n" % (number, number), b"e%d\n" % number, number % 256)


def test_boxes_from_sixteen_threads() -> None:
    def one(number: int) -> bool:
        with Sandbox(name=f"box-{number}", env={"N": str(number)}) as box:
            return box.exec(shell("hostname; echo $N")).stdout == b"box-%d\n%d\n" % (number, number)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(64)))


def test_commands_run_at_the_same_time() -> None:
    with Sandbox() as box, ThreadPoolExecutor(8) as pool:
        began = time.monotonic()
        assert all(pool.map(lambda _: box.exec(["sleep", "0.5"]).ok, range(8)))
        assert time.monotonic() - began < 2.5


def test_a_command_that_kills_its_siblings() -> None:
    with Sandbox() as box:
        victims: list[int | None] = []
        threads = [
            threading.Thread(target=lambda: victims.append(box.exec(["sleep", "30"]).exit.signal)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        # kill(-1) spares the caller, and does not reach pid 1.
        assert box.exec(python("import os; os.kill(-1, 9)")).ok
        for thread in threads:
            thread.join(10)
        assert victims == [9] * 4
        assert box.exec(["true"]).ok


def test_killing_everything_in_a_loop_never_hurts_the_box() -> None:
    program = python(
        "import os,time\nend=time.time()+1\nwhile time.time()<end:\n try: os.kill(-1, 9)\n except OSError: pass"
    )
    with Sandbox() as box:
        killer = threading.Thread(target=box.exec, args=(program,))
        killer.start()
        ended = []
        while killer.is_alive():
            try:
                ended.append(box.exec(["true"]).exit.kind)
            except BoxError as error:
                ended.append(type(error).__name__)
        killer.join()
        assert len(ended) > 10
        assert "BoxLost" not in ended
        assert box.exec(["true"]).ok


def test_a_timeout_leaves_the_box_usable() -> None:
    with Sandbox() as box:
        for _ in range(5):
            assert box.exec(["sleep", "20"], timeout_s=0.05).exit.kind == "timeout"
        assert box.exec(["echo", "fine"]).stdout == b"fine\n"


def test_children_that_left_the_group_die_with_the_box() -> None:
    box = Sandbox()
    try:
        assert box.exec(shell("for i in 1 2 3; do setsid sleep 44 & done; (sleep 45 &) &")).ok
        count = shell("cat /proc/[0-9]*/comm | grep -c sleep")
        assert eventually(lambda: box.exec(count).stdout == b"4\n")
        pid = box._box.pid
    finally:
        box.close()
    assert not running(pid)


def test_orphans_are_reaped() -> None:
    with Sandbox() as box:
        script = shell(
            "for i in $(seq 50); do (setsid true &) ; done; sleep 0.3; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l"
        )
        assert box.exec(script).stdout.strip() == b"0"


def test_process_numbers_of_the_box() -> None:
    with Sandbox() as box:
        seen = box.exec(shell("cat /proc/1/comm; echo $PPID")).stdout
        assert seen == b"immure-init\n1\n"
