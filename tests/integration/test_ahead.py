"""The next box of a plan that is asked for again and again is begun before it is wanted: it is one request's and nobody
else's, it has what that request brings, and nothing of it is left or in anybody's way.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import msgspec
import pytest

from immure import Sandbox, run
from immure.engine.prepare import host_facts, prepare
from immure.engine.session import measure
from immure.engine.spawners import close_all, native_program
from immure.errors import BoxError
from immure.runtimes.process.box import Box
from immure.runtimes.process.spawner import Spawner
from immure.spec.models import Limits, SandboxSpec

from .command_line import shell
from .processes import Process, descendants, eventually, has_one_id, running, spare_of, spawner_pids

pytestmark = pytest.mark.rootless

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts")


@pytest.fixture(autouse=True)
def a_new_spawner() -> None:
    close_all()


def spare() -> Process | None:
    """What this process's spawners have begun and nobody has asked for."""
    found = [one for pid in spawner_pids() if (one := spare_of(pid))]
    assert len(found) <= 1, found
    return found[0] if found else None


def begun() -> int:
    """The pid of a box that is begun, or will be in a moment."""
    assert eventually(spare), "nothing is begun"
    found = spare()
    assert found is not None
    return found.pid


def nothing_is_begun() -> bool:
    """Not in a hundred times of what a spawner waits for."""
    time.sleep(0.1)
    return spare() is None


def twice(**spec: object) -> None:
    for _ in range(2):
        assert run(["true"], **spec).ok


def pid_of(box: Sandbox) -> int:
    """Of its first process."""
    (found,) = (one.pid for one in descendants() if one.name == "immure-init" and one.parent in spawner_pids())
    assert box.exec(["true"]).ok
    return found


def test_the_next_of_the_same_is_begun_and_becomes_the_box() -> None:
    twice()
    pid = begun()
    with Sandbox() as box:
        assert pid_of(box) == pid
        assert box.level.awarded == "L2"
    assert not running(pid)
    assert begun() != pid


def test_and_that_of_one_command() -> None:
    twice()
    pid = os.pidfd_open(begun())
    assert run(["true"]).ok
    # Readable: it has ended with its command.
    import select

    assert select.select([pid], [], [], 5)[0]
    os.close(pid)


def test_none_is_anybodys_but_one_requests() -> None:
    twice()
    boxes: list[Sandbox] = []
    pids: list[int] = []
    try:
        for number in range(8):
            # What is begun while no range is at hand is begun by those that end.
            assert run(["true"]).ok
            pids.append(begun())
            boxes.append(Sandbox())
            assert not spare()
            seen = boxes[-1].exec(shell(f"ls -A /tmp /dev/shm; echo {number} > /tmp/mine; sleep 60 & exit 0"))
            assert seen.stdout == b"/dev/shm:\n\n/tmp:\n"
        hosts = [box.evidence().host for box in boxes]
        for name in NAMESPACES:
            assert len({host.namespaces[name] for host in hosts}) == len(boxes), name
        if not has_one_id():
            assert len({host.uid_map for host in hosts}) == len(boxes)
        assert len(set(pids)) == len(boxes)
    finally:
        for box in boxes:
            box.close()


def test_one_alone_and_two_in_turn_begin_nothing() -> None:
    assert run(["true"]).ok
    assert nothing_is_begun()
    for name in ("one", "two") * 3:
        assert run(["true"], name=name).ok
    assert nothing_is_begun()
    twice(name="two")
    assert begun(), "the control"


def test_another_plan_that_is_asked_for_twice_takes_its_place() -> None:
    twice(name="one")
    first = begun()
    assert run(["true"], name="two").ok
    assert spare() is not None
    assert running(first), "asked for once, it takes nothing away"
    twice(name="two")
    assert eventually(lambda: not running(first))
    second = begun()
    assert run(["hostname"], name="one").stdout == b"one\n"
    with Sandbox(name="two") as box:
        assert box.exec(["hostname"]).stdout == b"two\n"
        assert pid_of(box) == second


OTHERS: dict[str, dict[str, object]] = {
    "bare": {"level": "L1", "namespaces": "none"},
    "host network": {"level": "L1", "network": "host"},
    "a capability": {"capabilities": ["NET_RAW"]},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_boxes(name: str) -> None:
    """Bare ones have nothing to begin; and no spawner is busy with what it can't do."""
    spec = OTHERS[name]
    for _ in range(2):
        twice(**spec)
        assert eventually(spare, within=0.5) == (name != "bare")
        (spawner,) = spawner_pids()
        before = ticks_of(spawner)
        time.sleep(0.3)
        assert ticks_of(spawner) - before <= 1


def ticks_of(pid: int) -> int:
    """Of the processor, of which a second has a hundred."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_mounts_are_those_of_the_moment_in_which_it_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file").write_text("old")
    spec = {"mounts": [(str(tmp_path / "work"), "/work", "rw")]}
    twice(**spec)
    pid = begun()
    (tmp_path / "work").rename(tmp_path / "away")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "file").write_text("new")
    with Sandbox(**spec) as box:
        assert pid_of(box) == pid
        assert box.exec(shell("cat /work/file; echo more > /work/made")).stdout == b"new"
    made = tmp_path / "work" / "made"
    assert (made.read_text(), made.stat().st_uid) == ("more\n", os.geteuid())


def test_limits_hold_and_their_cgroups_go() -> None:
    if not host_facts().cgroups:
        pytest.skip("host: no cgroups that may be written")
    spec: dict[str, object] = {"memory_mib": 64, "pids": 20}
    twice(**spec)
    pid = begun()
    with Sandbox(**spec) as box:
        assert pid_of(box) == pid
        cgroup = Path(f"/proc/{pid}/cgroup").read_text()
        assert "/immure-" in cgroup, cgroup
        eaten = box.exec(["python3", "-c", "x = bytearray(200 << 20)"])
        assert eaten.exit.kind == "oom"
    close_all()
    assert not [path for parent in host_facts().cgroups for path in Path(parent.path).glob("immure-*-*")]


@pytest.mark.parametrize("time", range(10))
def test_one_that_has_ended_meanwhile_is_replaced(time: int) -> None:
    twice()
    pid = begun()
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not running(pid))
    result = run(["true"])
    assert result.ok
    assert result.level.awarded == "L2"


@pytest.mark.parametrize("time", range(10))
def test_one_that_is_killed_as_it_is_wanted_is_an_error_and_no_hang(time: int) -> None:
    twice()
    os.kill(begun(), signal.SIGKILL)
    try:
        assert run(["true"]).ok
    except BoxError as error:
        assert "before it was ready" in str(error) or "witness" in str(error)
    assert run(["true"]).ok


def test_it_ends_with_its_spawner() -> None:
    for end in (close_all, lambda: os.kill(next(iter(spawner_pids())), signal.SIGKILL)):
        twice()
        pid = begun()
        end()
        assert eventually(lambda pid=pid: not running(pid))
        close_all()


def test_the_only_range_is_whoevers_who_wants_it(tmp_path: Path) -> None:
    """What is begun holds it, and a box of another plan gets it all the same."""
    if has_one_id():
        pytest.skip("root: needs ranges of ids")
    one, two = (prepare(SandboxSpec(limits=Limits(disk_mib=size)), base=Path.cwd()) for size in (10, 20))
    assert one.plan_sha256 != two.plan_sha256
    config = msgspec.msgpack.decode(one.config)
    config["ids"]["slots"] = 1
    with (tmp_path / "ids.lock").open("w") as lock:
        spawner = Spawner(native_program(), msgspec.msgpack.encode(config), lock.fileno())
    try:
        for launch in (one, one):
            box = Box(spawner, launch, one_shot=False)
            measure(box)
            box.close()
        assert eventually(lambda: spare_of(spawner.pid))
        box = Box(spawner, two, one_shot=False)
        measure(box)
        assert spare_of(spawner.pid) is None
        box.close()
    finally:
        spawner.close()


def test_many_threads_that_want_the_same_at_once() -> None:
    twice()
    begun()
    outcomes: list[bytes | BaseException] = []

    def one(number: int) -> None:
        for _ in range(10):
            try:
                outcomes.append(run(shell(f"ls -A /tmp; echo {number} > /tmp/x; cat /tmp/x")).stdout)
            except BaseException as error:  # told by the assertion below
                outcomes.append(error)
            time.sleep(0.003)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(repr, outcomes)) == sorted(repr(f"{number}\n".encode()) for number in range(6) for _ in range(10))
