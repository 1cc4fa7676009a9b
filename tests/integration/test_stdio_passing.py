"""Which of the caller's standard descriptors a command gets as they are, and which never enter its box."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .command_line import CommandLine, python

pytestmark = pytest.mark.rootless

#: On a descriptor of its own choice, what the others are: a line for each, `number kind target flags`.
REPORT = python(
    "import os,stat,fcntl,sys\n"
    "lines=[]\n"
    "for n in (0,1,2):\n"
    "    s=os.fstat(n); kind=stat.filemode(s.st_mode)[0]\n"
    "    flags=fcntl.fcntl(n,fcntl.F_GETFL)&3; link=os.readlink(f'/proc/self/fd/{n}')\n"
    "    lines.append(f'{n} {kind} {s.st_ino} {flags} {link}')\n"
    "os.write(int(sys.argv[1]), ('\\n'.join(lines)+'\\n').encode())"
)


def report_on(number: int) -> list[str]:
    return [*REPORT, str(number)]


def parsed(text: bytes) -> dict[int, tuple[str, int, int, str]]:
    found: dict[int, tuple[str, int, int, str]] = {}
    for line in text.decode().splitlines():
        number, kind, inode, flags, target = line.split(" ", 4)
        found[int(number)] = (kind, int(inode), int(flags), target)
    return found


@contextmanager
def opened(path: str | Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def test_pipes_are_passed_as_they_are(cli: CommandLine) -> None:
    in_reader, in_writer = os.pipe()
    ended = cli.run("-i", "--", *report_on(1), stdin=in_reader)
    seen = parsed(ended.stdout)
    assert seen[0] == ("p", os.fstat(in_reader).st_ino, os.O_RDONLY, f"pipe:[{os.fstat(in_reader).st_ino}]")
    assert [seen[number][0] for number in (1, 2)] == ["p", "p"]
    os.close(in_reader)
    os.close(in_writer)


def test_a_limit_on_output_puts_a_pipe_of_ours_between(cli: CommandLine) -> None:
    reader, writer = os.pipe()
    ended = cli.run("--max-output", "1", "--", *report_on(1), stdout=writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        seen = parsed(file.read())
        assert ended.returncode == 0
        assert seen[1][0] == "p"
        assert seen[1][1] != os.fstat(file.fileno()).st_ino


def test_a_named_pipe_is_passed_as_it_is(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with opened(path, os.O_WRONLY) as writer:
        ended = cli.run("--", *report_on(1), stdout=writer)
    with os.fdopen(reader, "rb") as file:
        assert parsed(file.read())[1][:3] == ("p", path.stat().st_ino, os.O_WRONLY)
    assert ended.returncode == 0


def test_the_null_device_is_passed_as_it_is(cli: CommandLine) -> None:
    with opened("/dev/null", os.O_RDWR) as null:
        ended = cli.run("-i", "--", *report_on(1), stdin=null, stderr=null)
    seen = parsed(ended.stdout)
    assert [seen[number][0] for number in (0, 2)] == ["c", "c"]
    assert [seen[number][3] for number in (0, 2)] == ["/dev/null", "/dev/null"]
    assert seen[2][2] == os.O_RDWR, "the caller's own, not a copy opened anew"


def test_files_are_passed_in_the_matching_mode(tmp_path: Path, cli: CommandLine) -> None:
    source, out, err = (tmp_path / name for name in ("in", "out", "err"))
    source.write_bytes(b"content")
    with (
        opened(source, os.O_RDONLY) as stdin,
        opened(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as stdout,
        opened(err, os.O_WRONLY | os.O_CREAT) as stderr,
    ):
        ended = cli.run("-i", "--", *report_on(1), stdin=stdin, stdout=stdout, stderr=stderr)
    assert ended.returncode == 0
    seen = parsed(out.read_bytes())
    assert seen[0][:3] == ("-", source.stat().st_ino, os.O_RDONLY)
    assert seen[1][:3] == ("-", out.stat().st_ino, os.O_WRONLY)
    assert seen[2][:3] == ("-", err.stat().st_ino, os.O_WRONLY)


def test_a_file_that_was_passed_can_not_be_opened_anew(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"content")
    path.chmod(0o666)
    tmp_path.chmod(0o777)
    program = python("open('/proc/self/fd/0', 'r+').write('planted')")
    with opened(path, os.O_RDONLY) as stdin:
        assert cli.run("-i", "--", *program, stdin=stdin).returncode == 1
    assert path.read_bytes() == b"content"


def test_a_file_opened_to_read_and_write_does_not_enter(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "both"
    path.write_bytes(b"content")
    with opened(path, os.O_RDWR) as both:
        seen = parsed(cli.run("-i", "--", *report_on(1), stdin=both, stderr=both).stdout)
        assert path.stat().st_ino not in (seen[0][1], seen[2][1])
        assert (seen[0][0], seen[2][0]) == ("p", "p")
        os.lseek(both, 0, os.SEEK_SET)
        assert cli.run("-i", "--", "cat", stdin=both).stdout == b"content", "its content is pumped"
        ended = cli.run("--", "sh", "-c", "echo more >&2", stderr=both)
        assert ended.returncode == 0
    assert path.read_bytes() == b"contentmore\n"


@pytest.mark.parametrize("stream", ["stdin", "stderr"])
def test_a_folder_does_not_enter(stream: str, cli: CommandLine) -> None:
    number = 0 if stream == "stdin" else 2
    program = python(
        "import os,sys\n"
        "try: print(os.listdir(os.open('../..', os.O_RDONLY, dir_fd=int(sys.argv[1]))))\n"
        "except OSError as error: print(type(error).__name__)",
        str(number),
    )
    with opened("/usr/bin", os.O_RDONLY | os.O_DIRECTORY) as folder:
        ended = cli.run("-i", "--", *program, **{stream: folder})
    # Python itself may refuse to start with a folder as one of its streams.
    assert ended.stdout == b"NotADirectoryError\n" or (ended.stdout == b"" and ended.returncode != 0)


def test_a_socket_does_not_enter(cli: CommandLine) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"through a socket")
        ours.shutdown(socket.SHUT_WR)
        ended = cli.run("-i", "--", "cat", stdin=theirs, stdout=theirs)
        assert ended.returncode == 0
        theirs.close()
        assert ours.recv(100) == b"through a socket", "its content is pumped, both ways"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seen = parsed(cli.run("-i", "--", *report_on(1), stdin=theirs, stderr=theirs).stdout)
    assert [seen[number][0] for number in (0, 2)] == ["p", "p"]


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/urandom"])
def test_other_devices_do_not_enter(device: str, cli: CommandLine) -> None:
    with opened(device, os.O_RDONLY) as stdin:
        assert parsed(cli.run("-i", "--", *report_on(1), stdin=stdin).stdout)[0][0] == "p"
        if device != "/dev/full":
            assert len(cli.run("-i", "--", "head", "-c", "300000", stdin=stdin).stdout) == 300_000


def test_a_terminal_does_not_enter(cli: CommandLine) -> None:
    primary, terminal = pty.openpty()
    reader, writer = os.pipe()
    process = subprocess.Popen(
        cli.words("run", "-i", "--", *report_on(2)), env=cli.env, stdin=terminal, stdout=terminal, stderr=writer
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        seen = parsed(file.read())
    assert process.wait(20) == 0
    assert [seen[number][0] for number in (0, 1)] == ["p", "p"]
    assert not any("/dev/pts" in one[3] or "/dev/tty" in one[3] for one in seen.values())
    os.close(primary)
    os.close(terminal)


def test_there_is_no_controlling_terminal(cli: CommandLine) -> None:
    """The caller's own terminal can't be reached by /dev/tty either."""
    program = python("open('/dev/tty')")
    pid, primary = pty.fork()
    if pid == 0:
        os.execvpe(cli.words("run")[0], cli.words("run", "--", *program), cli.env)
    said = read_all(primary)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert b"No such device or address" in said
    os.close(primary)


def read_all(fd: int) -> bytes:
    """Everything until the terminal's last user is gone, which a pty tells by EIO."""
    found = b""
    while True:
        try:
            chunk = os.read(fd, 4096)
        except OSError:
            return found
        if not chunk:
            return found
        found += chunk


@pytest.mark.parametrize("closed", [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("words", [[], ["--max-output", "1"]], ids=["passed", "pumped"])
def test_descriptors_that_the_caller_has_closed(
    closed: list[int], words: list[str], tmp_path: Path, cli: CommandLine
) -> None:
    """No descriptor of our own may take the place of one that is missing: neither be given, nor be pumped to."""
    tmp_path.chmod(0o777)
    script = (
        "for n in 0 1 2; do readlink /proc/self/fd/$n; done > /work/seen; "
        "for n in 1 2 3 4 5 6 7 8; do echo output; echo errors >&2; done; exit 7"
    )
    redirections = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    command = cli.words("run", "-i", *words, "-v", f"{tmp_path}:/work:rw", "--", "sh", "-c", script)
    ended = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", *command],
        env=cli.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 7, ended.stderr
    if not words:
        # The first loop has its own output in the place of the caller's.
        seen = (tmp_path / "seen").read_text().splitlines()
        assert all(seen[number] == "/dev/null" for number in closed if number != 1), seen
    if 1 not in closed:
        assert ended.stdout == b"output\n" * 8
    if 2 not in closed:
        assert ended.stderr == b"errors\n" * 8
