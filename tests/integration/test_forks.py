"""Forks without exec, as `multiprocessing` makes them, at bad moments: they hold up nothing and end nothing."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from immure import Result, Sandbox, run
from immure.engine import local, spawners, stdio
from immure.engine.process import Process
from immure.engine.spawners import close_all
from immure.runtimes.process import captured as capturing
from immure.runtimes.process import pipes, spawner

from .command_line import python, shell
from .forking import idle_child, said_by_child
from .processes import descendants, eventually, running

pytestmark = pytest.mark.rootless


def in_time(work: Callable[[], Any]) -> Any:
    """What `work` comes to on a thread of its own, which is not waited for longer than is reasonable."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(15)
    assert found, "it hangs"
    return found[0]


def by_run(argv: list[str]) -> Result:
    return run(argv)


def by_exec(argv: list[str]) -> Result:
    with Sandbox() as box:
        return box.exec(argv)


@pytest.mark.parametrize("by", [by_run, by_exec])
def test_a_child_that_holds_the_ends_of_its_pipes(
    by: Callable[[list[str]], Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forked by another thread after the pipes were made, and before the command had them for itself."""
    with ExitStack() as children:

        def forking(make: Callable[..., Any]) -> Callable[..., Any]:
            def made(*arguments: Any) -> Any:
                made = make(*arguments)
                children.enter_context(idle_child())
                return made

            return made

        monkeypatch.setattr(local, "captured", forking(stdio.captured))
        monkeypatch.setattr(capturing, "take_pipes", forking(pipes.take_pipes))
        result = in_time(lambda: by(["echo", "all of it"]))
    assert result.stdout == b"all of it\n"


#: Gives away its standard output, and then uses it.
GENEROUS = (
    "import socket, sys\n"
    "channel = socket.socket(socket.AF_UNIX)\n"
    "channel.connect('/work/socket')\n"
    "socket.send_fds(channel, [b'x'], [1])\n"
    "channel.recv(1)\n"
    "print('given')"
)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[list[int]]:
    """Somebody outside of the box, who takes descriptors at `socket` and keeps them."""
    taken: list[int] = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    (tmp_path / "socket").chmod(0o777)
    server.listen()

    def keep() -> None:
        while True:
            try:
                client = server.accept()[0]
            except OSError:
                return
            with client:
                taken.extend(socket.recv_fds(client, 1, 1)[1])
                client.send(b"x")

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    yield taken
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)
    for fd in taken:
        os.close(fd)


@pytest.mark.parametrize("one_shot", [True, False])
def test_a_command_that_gives_its_output_away(one_shot: bool, tmp_path: Path, keeper: list[int]) -> None:
    """Its caller waits for the box, and not for whoever has the pipe."""
    mounts = [(tmp_path, "/work", "rw")]

    def work() -> Result:
        if one_shot:
            return run(python(GENEROUS), mounts=mounts)
        with Sandbox(mounts=mounts) as box:
            return box.exec(python(GENEROUS))

    assert in_time(work).stdout == b"given\n"
    assert len(keeper) == 1, "the control: it is held open"


@pytest.mark.parametrize("end", [Process.close, Process.__del__], ids=["closed", "dropped"])
def test_a_command_ends_that_a_child_has_a_socket_of(end: Callable[[Process], None]) -> None:
    with Sandbox() as box:
        process = box.start(["sleep", "300"])
        with idle_child():
            end(process)
            assert eventually(lambda: not descendants(box._box.pid))


@pytest.mark.parametrize("stdin", [None, b"of its own"], ids=["without input", "with input"])
def test_a_command_that_ran_out_of_patience_ends_too(stdin: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception while it is waited for; its socket was used before, and so the child has it."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with Sandbox() as box:
        assert box.exec(["true"]).ok
        with idle_child(), monkeypatch.context() as patch:
            patch.setattr("immure.runtimes.process.attend.Attendance.run", interrupted)
            patch.setattr("immure.runtimes.process.captured.Captured.run", interrupted)
            with pytest.raises(KeyboardInterrupt):
                box.exec(["sleep", "300"], stdin=stdin)
            assert eventually(lambda: not descendants(box._box.pid))


def test_a_box_ends_that_nobody_holds_but_a_child() -> None:
    box = Sandbox()
    pid = box._box.pid
    with idle_child():
        del box
        gc.collect()
        assert eventually(lambda: not running(pid))


def test_a_spawner_ends_that_a_child_has_a_socket_of(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than anybody here waits: it is to end by itself.
    monkeypatch.setattr(spawner, "_PATIENCE_MS", 60_000)
    run(["true"])
    with idle_child():
        in_time(lambda: close_all() or True)


def test_a_child_that_is_forked_while_a_spawner_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that another thread holds at that moment is held for ever in the child."""
    close_all()
    reached, go_on, real = threading.Event(), threading.Event(), spawners.native_program

    def slow() -> str:
        reached.set()
        go_on.wait(30)
        return real()

    monkeypatch.setattr(spawners, "native_program", slow)
    other = threading.Thread(target=run, args=(["true"],))
    other.start()
    reached.wait(30)

    def work() -> bool:
        spawners.native_program = real
        return run(["true"]).ok

    try:
        assert said_by_child(work) == "True"
    finally:
        go_on.set()
        other.join(30)


def test_children_that_are_forked_while_commands_run() -> None:
    """Whatever the other threads are in the middle of, the child can make boxes, and they get their answers."""
    stop = threading.Event()
    wrong: list[str] = []

    def ask(box: Sandbox, number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            said = b"%d %d" % (number, count)
            answers = [box.exec(["cat"], stdin=said).stdout, run(["cat"], stdin=said).stdout]
            if answers != [said, said]:
                wrong.append(f"{said!r}: {answers}")

    with Sandbox() as box:
        threads = [threading.Thread(target=ask, args=(box, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            said = [said_by_child(lambda: run(["echo", "child"]).stdout.text()) for _ in range(12)]
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
    assert said == ["child\n"] * 12
    assert wrong == []


USES: dict[str, Callable[[Process], object]] = {
    "wait": lambda process: process.wait(),
    "poll": lambda process: process.poll(),
    "signal": lambda process: process.signal(15),
    "kill": lambda process: process.kill(),
    "read": lambda process: process.stdout.read(),
}


@pytest.mark.parametrize("use", USES)
def test_a_child_can_not_use_its_parent_s_command(use: str) -> None:
    with Sandbox() as box, box.start(shell("read line; echo $line; exit 7"), stdin=-1) as process:
        said = said_by_child(lambda: USES[use](process))
        for part in ("BoxLost", "another process", str(os.getpid()), "after the fork"):
            assert part in said
        assert process.stdin is not None
        process.stdin.write(b"mine\n")
        assert process.wait(30).exit.code == 7, "its end is still the parent's to hear"
        assert process.wait().stdout == b"mine\n"


def test_a_child_that_leaves_its_parent_s_blocks_ends_nothing() -> None:
    with Sandbox() as box, box.start(["sleep", "300"]) as process:

        def leave() -> None:
            with box, process:
                raise SystemExit(3)

        assert said_by_child(leave) == "SystemExit: 3"
        assert process.poll() is None
        assert [one.name for one in descendants(box._box.pid)] == ["sleep"]
        assert box.exec(["true"]).ok
