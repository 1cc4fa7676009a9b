"""Signals to `immure run` go on to the command."""

from __future__ import annotations

import os
import pty
import signal
import subprocess

import pytest

from .command_line import CommandLine, python, shell
from .processes import eventually, left_behind

pytestmark = pytest.mark.rootless

#: Names the signal that comes, and ends with 50.
CATCH = python(
    "import signal,sys,os,time\n"
    "def caught(number, frame): os.write(1, b'caught %d\\n' % number); os._exit(50)\n"
    "for n in (1,2,3,10,12,14,15,18): signal.signal(n, caught)\n"
    "os.write(1, b'ready\\n')\n"
    "while True: time.sleep(0.1)"
)
FORWARDED = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT]


def ready(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


@pytest.mark.parametrize("words", [[], ["--max-output", "1"]], ids=["passed", "pumped"])
@pytest.mark.parametrize("number", FORWARDED)
def test_a_signal_reaches_the_command(number: signal.Signals, words: list[str], cli: CommandLine) -> None:
    with cli.start(*words, "--", *CATCH, process_group=0) as process:
        ready(process)
        process.send_signal(number)
        assert process.stdout is not None
        assert process.stdout.read() == b"caught %d\n" % number
        assert process.wait(20) == 50


@pytest.mark.parametrize("number", FORWARDED)
def test_a_command_that_does_not_catch_it_is_ended_by_it(number: signal.Signals, cli: CommandLine) -> None:
    with cli.start("--", *shell("echo ready; exec sleep 20"), process_group=0) as process:
        ready(process)
        process.send_signal(number)
        assert process.wait(20) == 128 + number


def test_an_ignored_signal_is_ignored(cli: CommandLine) -> None:
    script = shell("trap '' TERM; echo ready; sleep 0.5; exit 9")
    with cli.start("--", *script) as process:
        ready(process)
        process.terminate()
        assert process.wait(20) == 9


def test_a_signal_at_the_first_sign_of_life_is_the_commands(cli: CommandLine) -> None:
    """What a command writes is seen at once, so it may be signalled before we have turned to waiting for it."""
    for _ in range(20):
        with cli.start("--", *shell("trap '' TERM; echo ready; sleep 0.05; exit 9")) as process:
            ready(process)
            process.terminate()
            assert process.wait(20) == 9


def test_several_signals_in_a_row(cli: CommandLine) -> None:
    program = python(
        "import signal,os,time\n"
        "seen=0\n"
        "def caught(number, frame):\n"
        "    global seen; seen += 1\n"
        "    os.write(1, b'%d\\n' % seen)\n"
        "    if seen == 5: os._exit(51)\n"
        "signal.signal(10, caught)\n"
        "os.write(1, b'ready\\n')\n"
        "while True: time.sleep(1)"
    )
    with cli.start("--", *program) as process:
        ready(process)
        assert process.stdout is not None
        for count in range(1, 6):
            process.send_signal(signal.SIGUSR1)
            assert process.stdout.readline() == b"%d\n" % count
        assert process.wait(20) == 51


def test_interrupt_from_a_terminal_reaches_the_whole_group(cli: CommandLine) -> None:
    program = python(
        "import os,signal,time\n"
        "child = os.fork() == 0\n"
        "def caught(number, frame):\n"
        "    if not child: os.wait()\n"
        "    os.write(1, b'child\\n' if child else b'parent\\n'); os._exit(3)\n"
        "signal.signal(2, caught)\n"
        "if not child: time.sleep(0.2); os.write(1, b'ready\\n')\n"
        "while True: time.sleep(0.1)"
    )
    pid, primary = pty.fork()
    if pid == 0:
        os.execvpe(cli.words("run")[0], cli.words("run", "--", *program), cli.env)
    said = b""
    while b"ready" not in said:
        said += os.read(primary, 1024)
    os.write(primary, b"\x03")
    while True:
        try:
            chunk = os.read(primary, 1024)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    os.close(primary)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    assert b"child" in said
    assert b"parent" in said


def test_a_hang_up_of_the_terminal_ends_the_command(cli: CommandLine) -> None:
    pid, primary = pty.fork()
    if pid == 0:
        os.execvpe(cli.words("run")[0], cli.words("run", "--", *shell("echo ready; exec sleep 60")), cli.env)
    said = b""
    while b"ready" not in said:
        said += os.read(primary, 1024)
    os.close(primary)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (128 + 1, -1)
    assert eventually(lambda: not left_behind())


def test_a_signal_that_the_caller_ignores_stays_ignored(cli: CommandLine) -> None:
    """As under nohup."""
    command = cli.words("run", "--", *shell("echo ready; sleep 0.5; exit 8"))
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]
    with subprocess.Popen(words, env=cli.env, stdout=subprocess.PIPE) as process:
        ready(process)
        process.send_signal(signal.SIGHUP)
        assert process.wait(20) == 8


def test_a_killed_command_line_takes_its_box_along(cli: CommandLine) -> None:
    with cli.start("--", *shell("echo ready; sleep 60")) as process:
        ready(process)
        assert left_behind()
        process.kill()
        assert process.wait(20) == -9
        assert eventually(lambda: not left_behind())


def test_a_timeout_holds_for_a_command_that_swallows_signals(cli: CommandLine) -> None:
    with cli.start(
        "-q", "--timeout", "0.6", "--", *shell("trap '' INT TERM; echo ready; sleep 20; sleep 20")
    ) as process:
        ready(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 124
