"""Boxes that outlive the command that made them: `run --keep`, `exec`, `ps`, `kill`, and who holds them."""

from __future__ import annotations

import marshal
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from immure import run
from immure.engine.keeper import held, place, wire
from immure.engine.prepare import prepare
from immure.spec.models import SandboxSpec

from .command_line import CommandLine, shell
from .kept_boxes import Kept, kept_boxes
from .processes import descendants, eventually, running

pytestmark = pytest.mark.rootless


@pytest.fixture
def kept(shared_cli: CommandLine, tmp_path: Path) -> Iterator[Kept]:
    # Longer than a socket's path may be.
    runtime = tmp_path / ("long-" * 20)
    runtime.mkdir()
    with kept_boxes(shared_cli.cache.parent, runtime) as one:
        yield one


def test_a_box_stays_when_its_command_has_ended(kept: Kept) -> None:
    ended = kept.run("--keep", "--name", "desk", "--", *shell("echo made > /tmp/note; echo said; exit 3"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, b"said\n", b"")
    assert kept.ok("exec", "desk", "--", "cat", "/tmp/note") == b"made\n"
    (box,) = kept.boxes().values()
    assert (box["name"], box["state"], box["level"], box["command"]) == ("desk", "ready", "L2", None)
    assert kept.ok("kill", "desk") == b""
    assert kept.boxes() == {}
    assert kept.carry_out("exec", "desk", "--", "true").returncode == 125


def test_a_box_without_a_command_is_made_and_named(kept: Kept) -> None:
    name = kept.ok("run", "--keep").decode().strip()
    assert name.startswith("box-")
    assert kept.ok("exec", name, "--", "hostname") == b"immure\n"
    ended = kept.run("--keep", "--", "true")
    assert ended.stderr.startswith(b"immure: the box is kept as box-")
    assert len(kept.boxes()) == 2


def test_a_name_has_one_box(kept: Kept) -> None:
    kept.keep("desk")
    ended = kept.run("--keep", "--name", "desk", "--", "true")
    assert ended.returncode == 125
    assert b"there is a box 'desk' already" in ended.stderr
    assert kept.ok("exec", "desk", "--", "true") == b""
    kept.ok("kill", "desk")
    kept.keep("desk")


def test_no_keeper_is_started_to_say_that_there_is_no_box(kept: Kept) -> None:
    assert kept.ok("ps").split() == [b"NAME", b"ID", b"LEVEL", b"STATE", b"PROCESSES", b"AGE", b"COMMAND"]
    for words in (("kill", "desk"), ("pause", "desk"), ("stats", "desk"), ("logs", "desk"), ("cp", "desk:/a", "b")):
        ended = kept.carry_out(*words)
        assert ended.returncode == 2, words
        assert b"no box is kept" in ended.stderr
    assert kept.ok("kill", "--all") == b""
    assert not kept.keepers()
    assert not kept.folder.exists()


def test_an_unknown_name_is_told_with_those_that_there_are(kept: Kept) -> None:
    kept.keep("desk")
    ended = kept.carry_out("exec", "dusk", "--", "true")
    assert ended.returncode == 125
    assert b"there is no box 'dusk'" in ended.stderr
    assert b"have: desk" in ended.stderr.replace(b"have  ", b"have: ").replace(b"\n", b" ")


def test_the_keeper_leaves_with_the_last_box(kept: Kept) -> None:
    kept.keep("one")
    kept.keep("two")
    assert len(kept.keepers()) == 1
    kept.ok("kill", "one")
    time.sleep(1.5)
    assert len(kept.keepers()) == 1, "the control: it stays for the other"
    kept.ok("kill", "two")
    assert eventually(lambda: not kept.keepers(), within=10)


def test_many_who_come_at_once_start_one_keeper(kept: Kept) -> None:
    names = [f"box-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(kept.keep, names))
    assert len(kept.keepers()) == 1
    assert set(kept.boxes()) == set(names)


def test_who_comes_as_it_leaves_gets_a_new_one(kept: Kept) -> None:
    for tenths in (9, 10, 11):
        kept.keep("desk")
        kept.ok("kill", "desk")
        time.sleep(tenths / 10)
    kept.keep("desk")
    assert kept.ok("exec", "desk", "--", "echo", "here") == b"here\n"


def test_a_keeper_that_is_killed_takes_its_boxes_along(kept: Kept) -> None:
    kept.keep("desk")
    (pid,) = kept.keepers()
    boxes = [one.pid for one in descendants(pid)]
    waiting = subprocess.Popen(
        kept.words("exec", "desk", "--", "sleep", "60"), env=kept.env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert eventually(lambda: kept.boxes()["desk"]["processes"] == 1)
    kept.kill_keeper()
    assert eventually(lambda: not any(running(one) for one in boxes))
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 125
    assert b"the box ended under the command" in said
    kept.keep("desk")
    assert kept.ok("exec", "desk", "--", "echo", "again") == b"again\n"


def test_a_keeper_that_is_told_to_end_ends_its_boxes(kept: Kept) -> None:
    kept.keep("desk")
    (pid,) = kept.keepers()
    boxes = [one.pid for one in descendants(pid)]
    assert boxes
    kept.kill_keeper(signal.SIGTERM)
    assert eventually(lambda: not any(running(one) for one in boxes))
    assert kept.boxes() == {}


def test_a_box_that_fails_is_shown_until_it_is_removed(kept: Kept) -> None:
    kept.keep("desk")
    (pid,) = kept.keepers()
    (spawner,) = (one.pid for one in descendants(pid) if one.name == "immure-spawner")
    os.kill(spawner, signal.SIGKILL)
    assert eventually(lambda: kept.boxes()["desk"]["state"] == "failed")
    ended = kept.carry_out("exec", "desk", "--", "true")
    assert ended.returncode == 125
    assert b"has ended by itself" in ended.stderr
    assert b"immure kill desk" in ended.stderr
    kept.keep("other")
    kept.ok("kill", "desk")
    assert set(kept.boxes()) == {"other"}
    assert kept.ok("exec", "other", "--", "true") == b""


def test_the_keeper_holds_nothing_of_who_started_it(kept: Kept, tmp_path: Path) -> None:
    """A pipe that it kept would never be at its end, and a folder could not be unmounted."""
    script = f"cd {tmp_path} && {sys.executable} -m immure run --keep --name desk 7>&1 8< {tmp_path} | cat"
    ended = subprocess.run(["sh", "-c", script], env=kept.env, stdout=subprocess.PIPE, timeout=20, check=True)
    assert ended.stdout == b"desk\n"
    (pid,) = kept.keepers()
    assert Path(f"/proc/{pid}/cwd").readlink() == Path("/")
    held = {str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()}
    assert str(tmp_path) not in held


def test_the_limit_of_open_files_is_that_of_who_made_the_keeper(kept: Kept) -> None:
    """It raises its own, to hold many boxes."""
    lowered = ["sh", "-c", 'ulimit -S -n 700; exec "$@"', "sh"]
    subprocess.run([*lowered, *kept.words("run", "--keep", "--name", "desk")], env=kept.env, timeout=30, check=True)
    (pid,) = kept.keepers()
    assert resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] > 700
    assert kept.ok("exec", "desk", "--", "sh", "-c", "ulimit -n") == b"700\n"


def test_mounts_are_those_of_who_made_the_box(kept: Kept, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    (work / "note").write_text("seen")
    made = subprocess.run(
        [*kept.words("run", "--keep", "--name", "desk", "-v", "./work:/work"), "--", "cat", "/work/note"],
        env=kept.env, cwd=tmp_path, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    assert made.stdout == b"seen"
    assert kept.ok("exec", "desk", "--", "pwd") == b"/work\n"
    ended = kept.run("--keep", "--name", "other", "-v", "/no/such/place:/work")
    assert ended.returncode == 125
    assert b"/no/such/place" in ended.stderr


def test_a_folder_that_others_can_enter_is_not_used(kept: Kept) -> None:
    kept.folder.mkdir(mode=0o700)
    kept.folder.chmod(0o755)
    ended = kept.run("--keep", "--", "true")
    assert ended.returncode == 125
    assert str(kept.folder).encode() in ended.stderr
    assert b"mode 755" in ended.stderr
    kept.folder.chmod(0o700)
    kept.keep("desk")


def test_a_link_in_place_of_the_folder_is_not_followed(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    kept.folder.symlink_to(tmp_path / "elsewhere")
    assert kept.run("--keep", "--", "true").returncode == 125
    assert not list((tmp_path / "elsewhere").iterdir())
    kept.folder.unlink()


def test_another_user_namespace_is_not_answered(kept: Kept) -> None:
    """A process of a box can have this user's id, and reach the socket where its folder is mounted."""
    kept.keep("desk")
    ended = subprocess.run(
        ["unshare", "-Ur", *kept.words("exec", "desk", "--", "true")], env=kept.env, stderr=subprocess.PIPE, check=False
    )
    assert ended.returncode == 125
    assert kept.ok("exec", "desk", "--", "true") == b"", "the control: from here it is"


def test_versions_that_differ_are_told(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.keep("desk")
    monkeypatch.setenv("XDG_RUNTIME_DIR", kept.env["XDG_RUNTIME_DIR"])
    there = place.Place(make=False)
    socket = there.connect()
    there.close()
    assert socket is not None
    with monkeypatch.context() as patched:
        patched.setattr(wire, "GREETING", b"immure-keeper 99.0 1.1\n")
        wire.send_value(socket, ("list", {}))
        with pytest.raises(wire.OtherVersion) as caught:
            wire.receive_value(socket)
        assert caught.value.have.startswith("immure-keeper ")
    socket.close()


@pytest.mark.parametrize(
    "message", [b"", b"x", wire.GREETING, wire.GREETING + b"i", wire.GREETING + b"iZZZ", b"\0" * 999]
)
def test_nonsense_is_no_end_of_the_keeper(kept: Kept, monkeypatch: pytest.MonkeyPatch, message: bytes) -> None:
    kept.keep("desk")
    monkeypatch.setenv("XDG_RUNTIME_DIR", kept.env["XDG_RUNTIME_DIR"])
    there = place.Place(make=False)
    socket = there.connect()
    there.close()
    assert socket is not None
    if message:
        socket.send(message)
    socket.close()
    assert kept.ok("exec", "desk", "--", "echo", "here") == b"here\n"


def test_a_command_in_the_background_is_remembered_while_it_runs() -> None:
    """However many end meanwhile; of those the newest are remembered."""
    launch = prepare(SandboxSpec(), base=Path.cwd())
    with held.HeldBox(launch, "desk", []) as box:
        first = box.start_background([b"sleep", b"300"], {})
        for _ in range(held._MOST + 5):
            box.start_background([b"true"], {})
            assert eventually(lambda: not box._background[-1].runs)
        assert box._background[0].number == first
        assert box._background[0].describe()["state"] == "running"
        assert len(box._background) == held._MOST + 2


ASKING = """
import socket, sys
asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asking.settimeout(10)
asking.connect(sys.argv[1])
try:
    asking.send(bytes.fromhex(sys.argv[2]))
    print(len(asking.recv(1000)))
except ConnectionError:
    print(0)
"""


def test_a_box_that_sees_the_socket_is_not_answered(kept: Kept) -> None:
    kept.keep("desk")
    question = (wire.GREETING + b"i" + marshal.dumps(("list", {}), 2)).hex()
    words = ["/usr/bin/python3", "-I", "-S", "-c", ASKING, "./keeper.sock", question]
    outside = subprocess.run(words, cwd=kept.folder, stdout=subprocess.PIPE, check=True)
    assert int(outside.stdout) > 0, "the control"
    inside = run(words, mounts=[(str(kept.folder), "/keeper", "rw")])
    assert (inside.exit.code, inside.stdout) == (0, b"0\n"), inside.stderr
