"""Standard input, output and error of a command whose output is kept."""

from __future__ import annotations

import hashlib
import threading
import time

import pytest

from immure import Sandbox, run

from .command_line import CommandLine, python, shell

pytestmark = pytest.mark.rootless


def test_output_and_errors_are_apart(cli: CommandLine) -> None:
    script = shell("echo out; echo err >&2; echo out2")
    result = run(script)
    assert (result.stdout, result.stderr) == (b"out\nout2\n", b"err\n")
    ended = cli.run("--", *script)
    assert (ended.stdout, ended.stderr) == (b"out\nout2\n", b"err\n")


def test_input() -> None:
    content = bytes(range(256)) * 5000
    assert run(["cat"], stdin=content).stdout == content
    with Sandbox() as box:
        assert box.exec(["cat"], stdin=content).stdout == content
        assert box.exec(["wc", "-c"], stdin=content).stdout.strip() == str(len(content)).encode()


@pytest.mark.parametrize("stdin", [None, b""], ids=repr)
def test_no_input_is_the_null_device(stdin: bytes | None) -> None:
    script = shell("readlink /proc/self/fd/0; cat | wc -c")
    assert run(script, stdin=stdin).stdout == b"/dev/null\n0\n"
    with Sandbox() as box:
        assert box.exec(script, stdin=stdin).stdout == b"/dev/null\n0\n"


def test_input_can_not_be_written_to() -> None:
    program = (
        "import os\n"
        "for how in (os.O_WRONLY, os.O_RDWR):\n"
        "    try: os.write(os.open('/proc/self/fd/0', how), b'x'); print('written')\n"
        "    except OSError as error: print(type(error).__name__)\n"
        "try: os.ftruncate(0, 0)\n"
        "except OSError: print('kept')\n"
    )
    assert b"written" not in run(python(program), stdin=b"content").stdout


def test_input_without_i_is_nothing(cli: CommandLine) -> None:
    assert cli.run("--", "wc", "-c", input=b"secret").stdout.strip() == b"0"


@pytest.mark.parametrize("words", [[], ["--max-output", "4"]], ids=["passed", "pumped"])
def test_input_with_i(words: list[str], cli: CommandLine) -> None:
    content = b"line\n" * 100_000
    ended = cli.run("-i", *words, "--", "cat", input=content)
    assert (ended.returncode, ended.stdout) == (0, content)


def test_ten_mebibytes_arrive_intact(cli: CommandLine) -> None:
    program = python(
        "import sys\n"
        "for i in range(160): sys.stdout.buffer.write(bytes([i % 251]) * 65536); sys.stderr.buffer.write(b'e')"
    )
    wanted = hashlib.sha256(b"".join(bytes([i % 251]) * 65536 for i in range(160))).hexdigest()
    for result in (run(program), cli.run("--", *program), cli.run("--max-output", "11", "--", *program)):
        assert len(result.stdout) == 10 << 20
        assert hashlib.sha256(result.stdout).hexdigest() == wanted
        assert result.stderr == b"e" * 160


@pytest.mark.parametrize("mebibytes", [0.25, 1.0])
def test_output_is_cut_at_its_limit(mebibytes: float, cli: CommandLine) -> None:
    size = int(mebibytes * (1 << 20))
    result = run(["yes"], output_mib=mebibytes)
    assert result.exit.kind == "output"
    assert result.stdout == (b"y\n" * (size // 2))[:size]
    assert result.truncated.stdout
    assert not result.truncated.stderr
    assert result.usage.stdout_bytes >= size
    ended = cli.run("--max-output", str(mebibytes), "--", "yes")
    assert (ended.returncode, len(ended.stdout)) == (125, size)


def test_exactly_the_limit_is_not_too_much() -> None:
    result = run(["head", "-c", str(1 << 20), "/dev/zero"], output_mib=1)
    assert (result.exit.kind, len(result.stdout)) == ("exited", 1 << 20)
    assert not result.truncated.stdout
    assert run(["head", "-c", str((1 << 20) + 1), "/dev/zero"], output_mib=1).exit.kind == "output"


def test_both_streams_share_the_limit() -> None:
    script = shell("head -c 700000 /dev/zero; head -c 700000 /dev/zero >&2; sleep 5")
    result = run(script, output_mib=1)
    assert result.exit.kind == "output"
    assert len(result.stdout) + len(result.stderr) == 1 << 20


def test_there_is_a_limit_where_none_is_written() -> None:
    result = run(["yes"])
    assert (result.exit.kind, len(result.stdout)) == ("output", 16 << 20)


def test_a_flood_in_a_box_ends_that_command_alone() -> None:
    with Sandbox() as box:
        other: list[int | None] = []
        thread = threading.Thread(target=lambda: other.append(box.exec(["sleep", "0.7"]).exit.code))
        thread.start()
        time.sleep(0.1)
        assert box.exec(["yes"], output_mib=0.1).exit.kind == "output"
        thread.join()
        assert other == [0]


def test_closed_streams() -> None:
    result = run(shell("exec >&- 2>&-; sleep 0.1; exit 4"))
    assert (result.exit.code, result.stdout) == (4, b"")


def test_what_a_background_process_holds_is_not_waited_for() -> None:
    with Sandbox() as box:
        began = time.monotonic()
        result = box.exec(shell("echo first; sleep 30 & exit 5"))
        assert (result.exit.code, result.stdout) == (5, b"first\n")
        assert time.monotonic() - began < 5


def test_a_background_process_of_a_one_shot_box_ends_with_it() -> None:
    began = time.monotonic()
    result = run(shell("echo first; sleep 30 & exit 5"))
    assert (result.exit.code, result.stdout) == (5, b"first\n")
    assert time.monotonic() - began < 5


def test_a_reader_that_leaves_early(cli: CommandLine) -> None:
    for words in ([], ["--max-output", "1000"]):
        process = cli.start(*words, "--", "yes")
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait(20) == 128 + 13
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
