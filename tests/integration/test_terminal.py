"""`immure run -t`: a terminal inside of a terminal, as a person at one sees it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from immure import Sandbox
from immure.policy.seccomp import preset_text

from .command_line import CommandLine, Word, shell
from .processes import eventually, left_behind

pytestmark = pytest.mark.rootless

PATIENCE_S = 20


class Screen:
    """A person's terminal with `immure` in it."""

    def __init__(self, words: list[Word], env: dict[str, str], size: tuple[int, int]) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        self.process = subprocess.Popen(
            words, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        self.shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait_for(self, text: bytes) -> None:
        end = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self._ours], [], [], 0.1)[0]:
                self.shown += os.read(self._ours, 1 << 16)

    def status(self) -> int:
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, self.shown
            if select.select([self._ours], [], [], 0.02)[0]:
                self.shown += os.read(self._ours, 1 << 16)
        return self.process.returncode

    def attributes(self) -> list[object]:
        return termios.tcgetattr(self._theirs)

    def raw(self) -> bool:
        return not self.attributes()[3] & termios.ECHO  # type: ignore[operator]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def screen(cli: CommandLine, *words: Word, size: tuple[int, int] = (91, 33), **env: str) -> Iterator[Screen]:
    made = Screen(cli.words("run", *words), {**cli.env, "TERM": "vt100", **env}, size)
    try:
        yield made
    finally:
        made.close()


def test_a_conversation_with_the_right_size_and_name(cli: CommandLine) -> None:
    with screen(cli, "-it", "--", *shell("stty size; echo $TERM; read -r x; echo got $x; exit 5")) as person:
        person.wait_for(b"33 91\r\nvt100\r\n")
        person.type(b"hello\r")
        person.wait_for(b"hello\r\ngot hello\r\n")
        assert person.status() == 5
        assert person.attributes() == person.before


def test_keys_are_the_command_s(cli: CommandLine) -> None:
    """Ctrl-C and Ctrl-Z are for it, not for us."""
    script = "trap 'echo int' INT; trap 'echo stop' TSTP; echo ready; while :; do read -r x && echo got $x; done"
    with screen(cli, "-it", "--", *shell(script)) as person:
        person.wait_for(b"ready")
        assert person.raw()
        person.type(b"\x03")
        person.wait_for(b"int")
        person.type(b"\x1a")
        person.wait_for(b"stop")
        person.type(b"more\r")
        person.wait_for(b"got more")
        assert person.process.poll() is None
        person.process.send_signal(signal.SIGKILL)
        person.process.wait()
    assert eventually(lambda: not left_behind())


def test_a_new_size_is_passed_on(cli: CommandLine) -> None:
    with screen(
        cli, "-it", "--", *shell("trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.02; done")
    ) as person:
        person.wait_for(b"ready")
        person.resize(101, 44)
        os.killpg(person.process.pid, signal.SIGWINCH)
        person.wait_for(b"44 101")
        assert person.status() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_the_terminal_is_put_back_when_a_signal_ends_it(number: int, cli: CommandLine) -> None:
    with screen(cli, "-it", "--", *shell("echo ready; while :; do sleep 0.02; done")) as person:
        person.wait_for(b"ready")
        assert person.raw()
        person.process.send_signal(number)
        assert person.status() == 128 + number
        assert person.attributes() == person.before
    assert eventually(lambda: not left_behind())


def test_the_terminal_is_put_back_when_nothing_could_be_run(cli: CommandLine) -> None:
    for words, status in (
        (["--", "no-such-command"], 127),
        (["-w", "/no/such", "--", "true"], 126),
        (["--level", "L9", "--", "true"], 125),
    ):
        with screen(cli, "-it", *words) as person:
            assert person.status() == status
            assert person.attributes() == person.before


def test_the_terminal_is_put_back_at_a_limit(cli: CommandLine) -> None:
    with screen(cli, "-it", "--timeout", "0.5", "--", *shell("echo ready; sleep 60")) as person:
        assert person.status() == 124
        assert person.attributes() == person.before
    with screen(cli, "-it", "--max-output", "0.1", "--", "yes") as person:
        assert person.status() == 125
        assert person.attributes() == person.before


def test_what_was_typed_ahead_is_not_lost(cli: CommandLine) -> None:
    with screen(cli, "-it", "--", *shell("sleep 0.3; read -r x; echo got $x")) as person:
        person.type(b"early\n")
        person.wait_for(b"got early")
        assert person.status() == 0


def test_without_i_nothing_is_typed(cli: CommandLine) -> None:
    with screen(cli, "-t", "--timeout", "1", "--", *shell("echo ready; read -r x; echo got $x")) as person:
        person.wait_for(b"ready")
        person.type(b"lost\r")
        assert person.status() == 124
        assert b"got" not in person.shown


def test_without_a_terminal_around_it(cli: CommandLine) -> None:
    """Input that ends is an end of input to it, as Ctrl-D is; output is a terminal's."""
    ended = cli.run("-it", "--", *shell("test -t 0 && test -t 1 && stty size; cat; exit 3"), input=b"one\ntwo\n")
    assert ended.returncode == 3
    assert b"24 80\r\n" in ended.stdout
    assert ended.stdout.count(b"one\r\n") == ended.stdout.count(b"two\r\n") == 2  # echoed, and from cat


def test_the_caller_s_terminal_is_not_in_the_box(cli: CommandLine) -> None:
    """Its own is: what it does to /dev/tty is done to that."""
    script = "stty -echo < /dev/tty; printf 'x\\n' > /dev/tty; ls -l /proc/self/fd | grep -c pts; echo done"
    with screen(cli, "-it", "--", *shell(script)) as person:
        person.wait_for(b"done")
        assert person.status() == 0
        assert b"x\r\n" in person.shown
        assert person.attributes() == person.before


def test_a_pushed_character_is_its_own(cli: CommandLine) -> None:
    """TIOCSTI reaches the box's terminal at most; what is typed into the caller's is the caller's."""
    program = "import fcntl, termios\ntry: fcntl.ioctl(0, termios.TIOCSTI, b'!')\nexcept OSError: pass\nprint('end')"
    with screen(cli, "-it", "--", "/usr/bin/python3", "-ISc", program) as person:
        person.wait_for(b"end")
        assert person.status() == 0
        os.set_blocking(person._theirs, False)
        with pytest.raises(BlockingIOError):
            os.read(person._theirs, 1)


@pytest.mark.parametrize(("request_number", "named"), [(0x80045430, False), (0x5412, True)])
def test_a_filter_that_ends_who_makes_terminals_does_not_end_the_box(request_number: int, named: bool) -> None:
    """The stem, which would make it, is under the filter too. The control: one that looks at another request."""
    condition = {"index": 1, "value": request_number, "op": "SCMP_CMP_EQ"}
    profile = json.loads(preset_text("default"))
    # Of several rules the strictest counts.
    profile["syscalls"].append({"names": ["ioctl"], "action": "SCMP_ACT_KILL_PROCESS", "args": [condition]})
    with Sandbox(seccomp=profile) as box:
        process = box.start(["sh", "-c", "test -t 0 && echo a terminal; tty || true"], pty=True)
        shown = process.stdout.read()
        assert process.wait().exit.code == 0
        assert shown.startswith(b"a terminal\r\n")
        assert (b"/dev/pts/0" in shown) == named
        assert box.exec(["true"]).ok
