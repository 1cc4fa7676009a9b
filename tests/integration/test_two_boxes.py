"""Two boxes at the same time know nothing of each other."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from immure import Sandbox, run
from immure.engine.prepare import host_facts
from immure.engine.spawners import close_all

from .command_line import CommandLine, python, shell
from .processes import has_one_id

pytestmark = pytest.mark.rootless


def test_they_share_no_files_processes_names_or_ports() -> None:
    listen = python(
        "import socket,os,time\n"
        "s=socket.socket(); s.bind(('127.0.0.1', 4444)); s.listen()\n"
        "u=socket.socket(socket.AF_UNIX); u.bind('\\0abstract'); u.listen()\n"
        "if os.fork() == 0: time.sleep(60)\n"
    )
    reach = python(
        "import socket\n"
        "for kind, place in ((socket.AF_INET, ('127.0.0.1', 4444)), (socket.AF_UNIX, '\\0abstract')):\n"
        "    try: socket.socket(kind).connect(place); print('reached')\n"
        "    except OSError as error: print(type(error).__name__)\n"
    )
    with Sandbox(name="one") as one, Sandbox(name="two") as two:
        assert one.exec(shell("echo secret > /tmp/a; echo secret > /dev/shm/b; sleep 50 & exit 0")).ok
        assert one.exec(listen).ok
        assert one.exec(reach).stdout == b"reached\nreached\n", "the control"
        assert two.exec(reach).stdout == b"ConnectionRefusedError\nConnectionRefusedError\n"
        assert two.exec(shell("ls -A /tmp /dev/shm")).stdout == b"/dev/shm:\n\n/tmp:\n"
        assert b"sleep" not in two.exec(shell("cat /proc/[0-9]*/comm")).stdout
        assert b"sleep" in one.exec(shell("cat /proc/[0-9]*/comm")).stdout
        assert (one.exec(["hostname"]).stdout, two.exec(["hostname"]).stdout) == (b"one\n", b"two\n")


def test_their_namespaces_differ() -> None:
    with Sandbox() as one, Sandbox() as two:
        seen = [box.evidence().host.namespaces for box in (one, two)]
    for name in ("user", "mnt", "pid", "net", "ipc", "uts"):
        assert seen[0][name] != seen[1][name], name


def test_one_ends_and_the_other_stays() -> None:
    with Sandbox() as one:
        with Sandbox() as two:
            assert two.exec(["true"]).ok
        assert one.exec(["true"]).ok


@pytest.mark.skipif(has_one_id(), reason="root: needs ranges of ids")
def test_no_two_boxes_have_the_same_ids_on_the_host() -> None:
    """More boxes than a short cycle of a bad sequence would hide."""
    boxes: list[Sandbox] = []
    try:
        for _ in range(min(150, host_facts().ids.slots)):
            boxes.append(Sandbox())
        maps = Counter(box.evidence().host.uid_map for box in boxes)
        assert max(maps.values()) == 1, f"{len(boxes)} boxes have {len(maps)} ranges"
    finally:
        for box in boxes:
            box.close()


@pytest.mark.skipif(has_one_id(), reason="root: needs ranges of ids")
def test_many_boxes_of_one_caller_leave_ranges_for_others(cli: CommandLine) -> None:
    boxes: list[Sandbox] = []
    try:
        for _ in range(min(150, host_facts().ids.slots)):
            boxes.append(Sandbox())
    finally:
        for box in boxes:
            box.close()
    ended = cli.run("--", "true")
    assert (ended.returncode, ended.stderr) == (0, b""), "this process and its spawner live on"


@pytest.mark.skipif(has_one_id(), reason="root: needs ranges of ids")
def test_boxes_of_callers_with_other_environments_have_other_ids(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All spawners of one user share one lock file, wherever their caches are."""
    show = shell("cat /proc/self/uid_map; sleep 1")
    callers = [CommandLine(tmp_path_factory.mktemp("cache")) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(lambda cli: cli.run("--", *show), callers))
    assert [one.stderr for one in ended] == [b""] * 8
    # The range is the longest of the lines: a plain user's own id has one of its own.
    longest = [
        max(text.splitlines(), key=lambda line: int(line.split()[2])).split()[1]
        for text in (one.stdout for one in ended)
    ]
    assert len(set(longest)) == 8, longest


def test_many_boxes_at_once() -> None:
    boxes: list[Sandbox] = []
    try:
        for _ in range(60):
            boxes.append(Sandbox())
        assert all(box.exec(["true"]).ok for box in boxes)
    finally:
        for box in boxes:
            box.close()


def test_a_spec_never_gets_the_plan_of_another() -> None:
    """Boxes of different specs, asked for at the same moment of a spawner that has just started."""
    wrong: list[tuple[str, object]] = []
    for round_number in range(12):
        close_all()
        start = threading.Barrier(12)

        def one(name: str, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                seen = run(["hostname"], name=name).stdout.text().strip()
            except Exception as error:
                wrong.append((name, error))
                return
            if seen != name:
                wrong.append((name, seen))

        threads = [threading.Thread(target=one, args=(f"box-{round_number}-{n}",)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
