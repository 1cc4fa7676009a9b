"""Arguments arrive as the bytes that they are, however many."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from immure import ExecFailed, Sandbox, run

from .command_line import CommandLine, python

pytestmark = pytest.mark.rootless

#: Writes its arguments, each with a NUL after it.
ECHO = python("import os,sys; sys.stdout.buffer.write(b''.join(os.fsencode(a)+b'\\0' for a in sys.argv[1:]))")
#: Their number, their bytes, and a digest of it all.
DIGEST = python(
    "import os,sys,hashlib; a=[os.fsencode(x) for x in sys.argv[1:]];"
    "print(len(a), sum(map(len,a)), hashlib.sha256(b'\\0'.join(a)).hexdigest())"
)
ODD = [
    b"",
    b" ",
    b"two words",
    b"line\nbreak",
    b"\x1b[31mred",
    b"\xff\xfe\x80",
    "ü€😀".encode(),
    b"--",
    b"-x",
    b"$HOME `id` *",
    b"'\"\\",
    bytes(range(1, 256)),
]


def digest(arguments: list[bytes]) -> bytes:
    joined = b"\0".join(arguments)
    return f"{len(arguments)} {sum(map(len, arguments))} {hashlib.sha256(joined).hexdigest()}\n".encode()


def test_odd_bytes() -> None:
    wanted = b"".join(one + b"\0" for one in ODD)
    assert run([*ECHO, *ODD]).stdout == wanted
    with Sandbox() as box:
        assert box.exec([*ECHO, *ODD]).stdout == wanted


def test_odd_bytes_on_the_command_line(cli: CommandLine) -> None:
    wanted = b"".join(one + b"\0" for one in ODD)
    # The second time the launch comes from the cache, by another way through the code.
    for _ in range(2):
        ended = cli.run("--", *ECHO, *ODD)
        assert (ended.returncode, ended.stdout) == (0, wanted)


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, 11_000), (1, 12_288), (1, 14_000), (1, 17_000), (40, 400), (1_500, 100), (1, 131_000), (90, 16_000)],
)
def test_long_commands(count: int, size: int) -> None:
    arguments = [bytes([65 + index % 26]) * size for index in range(count)]
    assert run([*DIGEST, *arguments]).stdout == digest(arguments)
    with Sandbox() as box:
        assert box.exec([*DIGEST, *arguments]).stdout == digest(arguments)


def test_around_the_size_at_which_a_memory_file_is_used() -> None:
    with Sandbox() as box:
        for size in range(11_700, 12_300, 7):
            argument = b"x" * size
            assert box.exec([*DIGEST, argument]).stdout == digest([argument]), size


def test_a_long_command_on_the_command_line(cli: CommandLine) -> None:
    arguments = [b"x" * 1000] * 200
    assert cli.run("--", *DIGEST, *arguments).stdout == digest(arguments)


@pytest.mark.parametrize("arguments", [[b"x" * 131_072], [b"x" * 100_000] * 40], ids=["one", "all"])
def test_more_than_the_kernel_takes(arguments: list[bytes]) -> None:
    with Sandbox() as box:
        with pytest.raises(ExecFailed) as caught:
            box.exec(["true", *arguments])
        assert caught.value.exit_status == 126
        assert caught.value.have == "Argument list too long"
        assert box.exec(["true"]).ok


def test_a_path_is_an_argument(tmp_path: Path) -> None:
    assert run([*ECHO, tmp_path]).stdout == str(tmp_path).encode() + b"\0"


def test_the_result_repeats_the_arguments() -> None:
    assert run(["true", b"\xff", "ü"]).argv == ("true", "\udcff", "ü")
