"""`immure trace`: of kept boxes, through their keeper, and of a command in a box of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runscs import VERSIONS, runsc_of

from .command_line import CommandLine, python, shell
from .kept_boxes import Kept, kept_boxes
from .processes import eventually, running

pytestmark = [
    pytest.mark.rootless,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="host: the calls are x86_64's"),
]


@pytest.fixture(params=VERSIONS)
def runsc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = runsc_of(request.param)
    monkeypatch.setenv("IMMURE_RUNSC", str(path))
    return path


@pytest.fixture
def tracing(runsc: Path, shared_cli: CommandLine) -> CommandLine:
    return CommandLine(shared_cli.cache.parent)


@pytest.fixture
def kept(runsc: Path, shared_cli: CommandLine, tmp_path: Path) -> Iterator[Kept]:
    with kept_boxes(shared_cli.cache.parent, tmp_path) as one:
        one.keep("desk", "--level", "L3")
        yield one


class Following:
    """`immure trace` of a kept box, under way: it says nothing of its own before there is something to see."""

    def __init__(self, kept: Kept, *options: str, box: str = "desk") -> None:
        words = kept.words("trace", *options, box)
        pipe = subprocess.PIPE
        # Unbuffered: what was not read as a line is collected later.
        self.process = subprocess.Popen(words, env=kept.env, stdout=pipe, stderr=pipe, bufsize=0)
        self.kept = kept

    def until_seen(self, *command: str) -> dict[str, Any]:
        """Has a command run until something is seen of it."""
        assert self.process.stdout is not None
        found: list[bytes] = []
        reader = threading.Thread(target=lambda stream: found.append(stream.readline()), args=(self.process.stdout,))
        reader.start()
        while reader.is_alive() and self.process.poll() is None:
            self.kept.carry_out("exec", "desk", "--", *command)
            reader.join(0.2)
        reader.join()
        return json.loads(found[0])

    def end(self, number: int = signal.SIGINT) -> tuple[int, bytes, bytes]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out, err


def events(text: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_command_is_traced_in_a_box_of_its_own(tracing: CommandLine) -> None:
    options = ("--json", "-p", "syscall/openat/exit", "-p", "sentry/execve", "--context", "process_name")
    ended = tracing.carry_out("trace", *options, "--", *shell("cat /etc/hosts >/dev/null; echo said; exit 3"))
    assert (ended.returncode, ended.stdout) == (3, b"said\n")
    *lines, remark = ended.stderr.splitlines()
    assert remark.startswith(b"immure: ")
    *found, end = events(b"\n".join(lines))
    (seen,) = [one for one in found if one["fields"].get("pathname") == "/etc/hosts"]
    assert (seen["point"], seen["process"]["name"], seen["denied"]) == ("syscall/openat/exit", "cat", None)
    assert [one["fields"]["argv"][0] for one in found if one["point"] == "sentry/execve"] == ["sh", "cat"]
    assert end["point"] == "trace/end"
    assert end["fields"]["events"] == len(found)
    assert end["fields"]["dropped"] == end["fields"]["malformed"] == 0


def test_what_was_denied_as_lines_for_people(tracing: CommandLine, tmp_path: Path) -> None:
    output = tmp_path / "events"
    output.write_text("old")
    ended = tracing.carry_out("trace", "--denied", "-q", "-o", output, "--", "cat", "/none/\x1b[31mred", "/etc/hosts")
    assert ended.returncode == 1
    assert ended.stderr.startswith(b"cat: ")
    assert b"immure:" not in ended.stderr
    lines = output.read_text().splitlines()
    assert all(" = E" in line for line in lines)
    assert any(r'pathname="/none/\x1b[31mred" flags=0x0 mode=0o0 = ENOENT' in line for line in lines), lines[-3:]
    ended = tracing.carry_out("trace", "--denied", "-p", "syscall/chroot/exit", "-o", output, "--", "true")
    assert (ended.returncode, output.read_bytes()) == (0, b"")
    assert ended.stderr.startswith(b"immure: 0 events")


def test_no_more_events_than_are_wanted_and_the_command_goes_on(tracing: CommandLine) -> None:
    program = "import os, sys\nfor _ in range(5000):\n os.path.exists('/x'); open('/etc/hosts').close()\nsys.exit(7)"
    ended = tracing.carry_out("trace", "-n", "5", "-p", "syscall/openat/exit", "-q", "--", *python(program))
    assert (ended.returncode, len(ended.stderr.splitlines())) == (7, 5)


def test_input_and_options_are_those_of_run(tracing: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    tmp_path.chmod(0o755)
    options = ("-o", "/dev/null", "-q", "-i", "-v", f"{tmp_path}:/work", "-e", "NAME=value", "--timeout", "30")
    ended = tracing.carry_out("trace", *options, "--", *shell("cat; cat file; echo $NAME"), input=b"typed ")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"typed contentvalue\n", b"")
    ended = tracing.carry_out("trace", "-q", "-o", "/dev/null", "--timeout", "0.5", "--", "sleep", "60")
    assert ended.returncode == 124


def test_an_output_that_can_not_be_written_ends_no_command(tracing: CommandLine) -> None:
    ended = tracing.carry_out("trace", "-o", "/dev/full", "--", *shell("echo said; exit 3"))
    assert (ended.returncode, ended.stdout) == (3, b"said\n")
    assert b"/dev/full can't be written" in ended.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ((), 2, b"neither a box nor a command"),
        (("nobody",), 2, b"no box"),
        (("desk", "--", "true"), 125, b"a box and a command"),
        (("--memory", "100", "desk"), 2, b"--memory: the box is made already"),
        (("--level", "L2", "--", "true"), 125, b"level L3"),
        (("-p", "sentry/none", "--", "true"), 125, b"no trace point 'sentry/none'"),
        (("-n", "0", "--", "true"), 125, b"less than one event"),
        (("-t", "--", "true"), 125, b"-o FILE"),
        (("-o", "/none/such", "--", "true"), 125, b"/none/such can't be written"),
    ],
)
def test_what_makes_no_sense(
    words: tuple[str, ...], status: int, message: bytes, shared_cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMMURE_RUNSC", str(runsc_of("newest")))
    ended = CommandLine(shared_cli.cache.parent).carry_out("trace", *words)
    assert ended.returncode == status
    assert message in ended.stderr


def test_a_kept_box_is_traced_through_its_keeper(kept: Kept) -> None:
    following = Following(kept, "--json", "-p", "syscall/openat/exit")
    assert following.until_seen("cat", "/none/such")["point"] == "syscall/openat/exit"
    refused = kept.carry_out("trace", "desk")
    assert (refused.returncode, b"traced already" in refused.stderr) == (2, True)
    kept.ok("exec", "desk", "--", "cat", "/etc/hosts")
    status, out, err = following.end()
    assert status == 130
    *found, end = events(out)
    assert {"/none/such", "/etc/hosts"} <= {one["fields"]["pathname"] for one in found}
    assert end["point"] == "trace/end"
    assert err.startswith(b"immure: ")
    # And the next one may come.
    following = Following(kept, "--json", "-n", "3", "-p", "syscall/openat/exit")
    following.until_seen("cat", "/none/such")
    out, _ = following.process.communicate(timeout=30)
    assert (following.process.returncode, len(out.splitlines())) == (0, 3)


def test_a_tracer_that_is_killed_leaves_no_session(kept: Kept) -> None:
    following = Following(kept, "--json")
    following.until_seen("true")
    assert following.end(signal.SIGKILL)[0] == -signal.SIGKILL
    # The keeper notices by itself.
    assert eventually(lambda: _traced(kept), within=20)


def _traced(kept: Kept) -> bool:
    following = Following(kept, "--json", "-n", "1")
    try:
        following.until_seen("true")
    except json.JSONDecodeError:
        # It was refused.
        return False
    finally:
        following.process.communicate()
    return following.process.returncode == 0


def test_the_end_of_a_kept_box_ends_its_trace(kept: Kept) -> None:
    following = Following(kept, "--json")
    following.until_seen("true")
    kept.ok("kill", "desk")
    out, _ = following.process.communicate(timeout=30)
    assert following.process.returncode == 0
    assert events(out)[-1]["point"] == "trace/end"
    assert not running(following.process.pid)


def test_a_kept_box_without_a_sentry_says_its_level(kept: Kept) -> None:
    kept.keep("other")
    ended = kept.carry_out("trace", "other")
    assert ended.returncode == 2
    assert b"a box of level L2" in ended.stderr
