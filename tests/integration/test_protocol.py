"""Nonsense on the sockets between engine, spawner and box: a clear end, never a hang, and never a wrong box."""

from __future__ import annotations

import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from immure import BoxLost, ImmureError, Sandbox, run
from immure.engine.prepare import prepare
from immure.engine.session import Once, measure
from immure.engine.spawners import close_all, spawner_for
from immure.engine.stdio import captured
from immure.plan.launch import Launch
from immure.runtimes.process import frames
from immure.runtimes.process.box import Box
from immure.runtimes.process.request import Request
from immure.runtimes.process.spawner import Spawner, memory_file, pair, receive, send
from immure.spec.models import SandboxSpec

from .processes import eventually, open_descriptors, running

pytestmark = pytest.mark.rootless

PATIENCE_S = 5.0


@pytest.fixture
def launch() -> Launch:
    return prepare(SandboxSpec(), base=Path.cwd())


@pytest.fixture
def spawner(launch: Launch) -> Iterator[Spawner]:
    """A spawner of the test's own."""
    close_all()
    yield spawner_for(launch)
    close_all()
    assert run(["true"]).ok, "the next spawner works"


def is_gone(pid: int) -> bool:
    return eventually(lambda: not running(pid), within=PATIENCE_S)


def numbers(*values: int) -> bytes:
    return b"".join(struct.pack("<I", value) for value in values)


REQUESTS = {
    "one byte": b"x",
    "half a header": b"\x02\x00\x00",
    "an unknown kind": frames.header(999),
    "kind nought": frames.header(0),
    "an answer": frames.header(frames.READY),
    "a plan without content": frames.header(frames.PLAN, 0, 1),
    "a plan of garbage": frames.header(frames.PLAN, 0, 1) + b"\xff" * 100,
    "a plan of another form": frames.header(frames.PLAN, 0, 1) + b"\x80",
    "a plan that is deep": frames.header(frames.PLAN, 0, 1) + b"\x91" * 10_000,
    "a plan that promises much": frames.header(frames.PLAN, 0, 1) + b"\xdd\xff\xff\xff\xff",
    "a box of no plan": frames.header(frames.BOX, 0, 77),
    "a box without sockets": frames.header(frames.BOX, 0, 1),
    "too much": b"\x02" * 20_000,
    "a second configuration": b"\x80",
}


@pytest.mark.parametrize("name", REQUESTS)
def test_nonsense_to_the_spawner_ends_it_and_its_boxes(name: str, launch: Launch, spawner: Spawner) -> None:
    box = Box(spawner, launch, one_shot=False)
    measure(box)
    send(spawner._socket, REQUESTS[name], [])
    assert is_gone(spawner.pid)
    assert is_gone(box.pid)
    with pytest.raises(BoxLost):
        box.hear_owner()
    box.close()


def test_nonsense_gives_a_word_of_what_was_wrong(launch: Launch, spawner: Spawner) -> None:
    send(spawner._socket, frames.header(frames.PLAN, 0, 1) + b"\xff" * 100, [])
    assert is_gone(spawner.pid)
    said = spawner.last_word()
    assert frames.kind_of(said) == frames.FAILED
    assert b"plan" in said


def test_random_nonsense(launch: Launch) -> None:
    dice = random.Random(3)
    for _ in range(30):
        close_all()
        spawner = spawner_for(launch)
        for _ in range(dice.randrange(1, 4)):
            kind = dice.choice([1, 2, 3, 4, 5, 11, 12, 101, dice.randrange(65_536)])
            body = dice.randbytes(dice.randrange(0, 200))
            try:
                send(spawner._socket, frames.header(kind, dice.randrange(4), dice.randrange(3)) + body, [])
            except BoxLost:
                break
        spawner._socket.shutdown(socket.SHUT_RDWR)
        assert is_gone(spawner.pid)
    close_all()


def test_a_plan_in_a_file_that_never_ends(launch: Launch, spawner: Spawner) -> None:
    fd = memory_file(b"\xc0" * 100_000)
    send(spawner._socket, frames.header(frames.PLAN, 0, 1), [fd])
    os.close(fd)
    assert is_gone(spawner.pid)


@pytest.mark.parametrize(
    "message", [b"x", frames.header(999), frames.header(frames.READY), b"\xff" * 60, b"\xff" * 4000]
)
def test_nonsense_from_the_owner_ends_the_box_alone(message: bytes, launch: Launch, spawner: Spawner) -> None:
    box, other = Box(spawner, launch, one_shot=False), Box(spawner, launch, one_shot=False)
    measure(box)
    measure(other)
    send(box.owner, message, [])
    assert is_gone(box.pid)
    assert running(other.pid)
    box.close()
    other.close()
    assert is_gone(other.pid)


def test_an_owner_that_lets_go_ends_the_box(launch: Launch, spawner: Spawner) -> None:
    for ready in (False, True):
        box = Box(spawner, launch, one_shot=False)
        if ready:
            measure(box)
        box.owner.close()
        box.stem.close()
        if ready:
            assert is_gone(box.pid)
    with_next = Box(spawner, launch, one_shot=False)
    measure(with_next)
    with_next.close()


def test_a_release_that_comes_too_early_is_no_hang(launch: Launch, spawner: Spawner) -> None:
    """The witness is inspected all the same, or the box ends."""
    box = Box(spawner, launch, one_shot=False)
    box.owner.settimeout(PATIENCE_S)
    box.release()
    try:
        measure(box)
    except ImmureError:
        pass
    box.close()


@pytest.mark.parametrize("ended", [False, True], ids=["asked at once", "asked when it has ended"])
def test_a_spawner_that_can_not_start_says_why(ended: bool, launch: Launch) -> None:
    config = msgspec.msgpack.decode(launch.config)
    config["cgroups"] = [{"path": "/sys/fs/cgroup/no/such/place", "version": 2, "switch_on": []}]
    bad = Launch.from_tuple(launch.to_tuple())
    bad.config = msgspec.msgpack.encode(config)
    spawner = spawner_for(bad)
    if ended:
        os.waitid(os.P_PID, spawner.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(ImmureError) as caught:
        Once().run(spawner, Request(bad, [b"true"]), lambda _: captured(None))
    close_all()
    assert "/sys/fs/cgroup/no/such/place" in str(caught.value)
    assert caught.value.have == "No such file or directory"


def command(argv: list[bytes], *, argc: int | None = None, envc: int = 0, workdir: bytes = b"/\0") -> bytes:
    body = workdir + b"\0" + b"".join(one + b"\0" for one in argv)
    return frames.header(frames.EXEC) + numbers(1000, 1000, len(argv) if argc is None else argc, envc) + body


STEM_MESSAGES = {
    "one byte": b"x",
    "an unknown kind": frames.header(999),
    "nothing": frames.header(frames.EXEC),
    "no argument": command([]),
    "more arguments than there are": command([b"true"], argc=9),
    "very many arguments": command([b"true"], argc=0xFFFFFFFF),
    "very many variables": command([b"true"], envc=0xFFFFFFFF),
    "no end": frames.header(frames.EXEC) + numbers(0, 0, 1, 0) + b"/",
    "a file that is missing": frames.header(frames.EXEC, frames.IN_FILE),
    "too much": frames.header(frames.EXEC) + b"x" * 30_000,
}


@pytest.mark.parametrize("name", STEM_MESSAGES)
@pytest.mark.parametrize("given", [0, 3, 4, 5])
def test_nonsense_to_the_stem_ends_the_box_or_the_command(
    name: str, given: int, launch: Launch, spawner: Spawner
) -> None:
    box = Box(spawner, launch, one_shot=False)
    measure(box)
    ours, theirs = pair()
    fds = [theirs.fileno(), *([os.open("/dev/null", os.O_RDWR)] * 4)][:given] if given else []
    try:
        send(box.stem, STEM_MESSAGES[name], fds)
    finally:
        theirs.close()
        for fd in set(fds[1:]):
            os.close(fd)
    ours.settimeout(PATIENCE_S)
    message, _ = receive(ours) if given else (b"", [])
    assert message == b"" or frames.kind_of(message) == frames.EXITED
    ours.close()
    box.close()
    assert is_gone(box.pid)


def test_closing_the_askers_socket_ends_the_command() -> None:
    with Sandbox() as box:
        null = os.open("/dev/null", os.O_RDWR)
        payload = frames.exec_payload(1000, 1000, "/", [b"sleep", b"300"], {b"PATH": b"/bin"})
        asker = box._box.start(payload, (null, null, null))
        assert eventually(lambda: b"sleep" in names(box))
        asker.close()
        os.close(null)
        assert eventually(lambda: b"sleep" not in names(box))


def names(box: Sandbox) -> bytes:
    return bytes(box.exec(["sh", "-c", "cat /proc/[0-9]*/comm"]).stdout)


@pytest.mark.parametrize("number", [0, 65, 1000, 0xFFFFFFFF, 0x80000000])
@pytest.mark.parametrize("flags", [0, frames.GROUP, 0xFFFF])
def test_signals_that_do_not_exist(number: int, flags: int) -> None:
    with Sandbox() as box:
        null = os.open("/dev/null", os.O_RDWR)
        payload = frames.exec_payload(1000, 1000, "/", [b"sleep", b"0.2"], {b"PATH": b"/bin"})
        asker = box._box.start(payload, (null, null, null))
        os.close(null)
        send(asker, frames.header(frames.SIGNAL, flags) + numbers(number), [])
        message, _ = receive(asker)
        assert frames.kind_of(message) == frames.EXITED
        assert frames.i32(message, 8) == 0
        asker.close()
        assert box.exec(["true"]).ok


def test_signals_under_way_when_a_command_ends_do_not_swallow_its_end(launch: Launch, spawner: Spawner) -> None:
    """A socket that is closed over unread messages tells its peer an error first, and what was sent only then."""
    null = os.open("/dev/null", os.O_RDWR)
    payload = frames.exec_payload(1000, 1000, "/", [b"true"], {b"PATH": b"/bin"})
    message = frames.header(frames.SIGNAL) + numbers(0)
    for _ in range(50):
        box = Box(spawner, launch, one_shot=True)
        asker = box.start(payload, (null, null, null))
        measure(box)
        try:
            while True:
                send(asker, message, [])
        except BoxLost:
            pass
        assert frames.kind_of(receive(asker)[0] or b"\0\0") == frames.EXITED
        asker.close()
        box.close()
    os.close(null)


def test_an_asker_asks_for_one_command_after_another() -> None:
    """On the socket of a command that has ended; signals that come late are for nobody."""
    with Sandbox() as box:
        null = os.open("/dev/null", os.O_RDWR)
        late = frames.header(frames.SIGNAL, frames.GROUP) + numbers(9)
        for status in range(40):
            payload = frames.exec_payload(1000, 1000, "/", [b"sh", b"-c", b"exit %d" % status], {b"PATH": b"/bin"})
            asker = box._box.start(payload, (null, null, null))
            message, _ = receive(asker)
            assert os.waitstatus_to_exitcode(frames.i32(message, 8)) == status
            send(asker, late, [])
            box._box.give_back(asker)
        assert len(box._box._askers) == 1
        os.close(null)


def test_a_second_command_while_one_runs_is_nonsense() -> None:
    with Sandbox() as box:
        null = os.open("/dev/null", os.O_RDWR)
        payload = frames.exec_payload(1000, 1000, "/", [b"sleep", b"300"], {b"PATH": b"/bin"})
        asker = box._box.start(payload, (null, null, null))
        send(asker, frames.header(frames.EXEC) + payload, [null, null, null])
        assert os.waitstatus_to_exitcode(frames.i32(receive(asker)[0], 8)) == -9
        assert receive(asker)[0] == b""
        os.close(null)
        assert box.exec(["true"]).ok


@pytest.mark.root
def test_askers_that_leave_are_forgotten() -> None:
    with Sandbox() as box:
        stem = box._box.pid
        first = len(open_descriptors(stem))
        null = os.open("/dev/null", os.O_RDWR)
        for name, patience in ((b"true", 0.05), (b"sleep", 0.0)):
            payload = frames.exec_payload(1000, 1000, "/", [name, b"300"], {b"PATH": b"/bin"})
            askers = [box._box.start(payload, (null, null, null)) for _ in range(20)]
            time.sleep(patience)
            for asker in askers:
                asker.close()
        os.close(null)
        assert eventually(lambda: len(open_descriptors(stem)) <= first), open_descriptors(stem)


def test_many_commands_that_nobody_reads(launch: Launch, spawner: Spawner) -> None:
    """The stem never waits for an asker: sockets that are full or closed hold nothing up."""
    box = Box(spawner, launch, one_shot=False)
    measure(box)
    null = os.open("/dev/null", os.O_RDWR)
    payload = frames.exec_payload(1000, 1000, "/", [b"true"], {b"PATH": b"/bin"})
    askers = [box.start(payload, (null, null, null)) for _ in range(200)]
    for asker in askers[:100]:
        asker.close()
    for asker in askers[100:]:
        assert frames.kind_of(receive(asker)[0]) == frames.EXITED
        asker.close()
    os.close(null)
    box.close()


def test_more_commands_at_once_than_the_stem_has_descriptors_for() -> None:
    """A box that is asked for too much refuses the command, and goes on."""
    code = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))\n"
        "from immure import Sandbox\n"
        "from immure.runtimes.process import frames\n"
        "with Sandbox(pids=3000, protections={'pids': 'best_effort'}) as box:\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "    null = os.open('/dev/null', os.O_RDWR)\n"
        "    payload = frames.exec_payload(1000, 1000, '/', [b'sleep', b'2'], {b'PATH': b'/bin'})\n"
        "    askers = []\n"
        "    for _ in range(500):\n"
        "        askers.append(box._box.start(payload, (null, null, null)))\n"
        "    for asker in askers: asker.close()\n"
        "    import time; time.sleep(0.5)\n"
        "    sys.exit(0 if box.exec(['true']).ok else 3)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr.decode()[-600:]


def test_a_caller_with_few_descriptors_gets_an_error_for_the_box_too_many() -> None:
    """And those that it has go on."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (128, 4096))\n"
        "from immure import Sandbox, ImmureError\n"
        "first = Sandbox()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "boxes = []\n"
        "error = None\n"
        "try:\n"
        "    for _ in range(200): boxes.append(Sandbox())\n"
        "except ImmureError as caught: error = caught\n"
        "print(len(boxes), repr(error), str(error))\n"
        "sys.exit(0 if all(box.exec(['true']).ok for box in [first, *boxes]) else 3)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stdout.decode() + ended.stderr.decode()[-600:]


def test_time_stands_still_for_nobody(launch: Launch, spawner: Spawner) -> None:
    """A box that is never measured does not hold up the next."""
    waiting = Box(spawner, launch, one_shot=False)
    began = time.monotonic()
    box = Box(spawner, launch, one_shot=False)
    measure(box)
    assert time.monotonic() - began < 2
    box.close()
    waiting.close()
