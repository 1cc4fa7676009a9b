"""What immure itself prints: hostile text is escaped before a terminal sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .command_line import CommandLine

pytestmark = pytest.mark.rootless

#: Ring, clear the screen, set the title, retrieve the title, C1 control, right-to-left override, new line, NEL.
HOSTILE = b"\x07\x1b[2J\x1b]0;title\x07\x1b[21t\xc2\x9b31m\xe2\x80\xae\n\r\xc2\x85\xff"


def is_plain(text: bytes) -> bool:
    decoded = text.decode()
    return all(one.isprintable() or one == "\n" for one in decoded)


@pytest.mark.parametrize(
    "words",
    [
        [b"--", b"/no/" + HOSTILE],
        [b"-w", b"/no/" + HOSTILE, b"--", b"true"],
        [b"-v", b"/no/" + HOSTILE + b":/x", b"--", b"true"],
        [b"-v", b"/usr:/proc/" + HOSTILE, b"--", b"true"],
        [b"-f", b"/no/" + HOSTILE, b"--", b"true"],
        [b"--seccomp", b"/no/" + HOSTILE, b"--", b"true"],
        [b"--level", HOSTILE, b"--", b"true"],
        [b"--net", HOSTILE, b"--", b"true"],
        [b"--result", b"/no/" + HOSTILE, b"--", b"true"],
        [b"-e", HOSTILE, b"--", b"true"],
        [b"--name", HOSTILE, b"--", b"true"],
        [b"--no-" + HOSTILE, b"--", b"true"],
        [b"--timeout", HOSTILE, b"--", b"true"],
        [b"--best-effort", HOSTILE, b"--", b"true"],
    ],
    ids=["command", "workdir", "source", "target", "file", "seccomp", "level", "net", "result", "env", "name",
         "option", "number", "choice"],
)  # fmt: skip
def test_hostile_words(words: list[bytes], cli: CommandLine) -> None:
    ended = cli.run(*words)
    assert b"Traceback" not in ended.stderr
    assert ended.stderr
    assert is_plain(ended.stderr), ended.stderr
    assert is_plain(ended.stdout), ended.stdout


def test_hostile_documents(tmp_path: Path, cli: CommandLine) -> None:
    path = tmp_path / "spec.yaml"
    for text in (
        '"\\x1b[2J": 1',
        'apiVersion: "\\x1b[2J"',
        'apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {"\\x1b[2J": 1}',
        'apiVersion: immure.dev/v1\nkind: Sandbox\nspec: {files: {mounts: [{source: "\\x1b[2J", target: /x}]}}',
        "\x1b[2J",
    ):
        path.write_text(text)
        ended = cli.run("-f", path, "--", "true")
        assert ended.returncode == 125
        assert is_plain(ended.stderr), ended.stderr


def test_a_dry_run_of_hostile_names(tmp_path: Path, cli: CommandLine) -> None:
    folder = tmp_path / "\x1b[2J"
    folder.mkdir()
    ended = cli.run("--dry-run", "-v", f"{folder}:/work", "--", "true")
    assert ended.returncode == 0
    assert is_plain(ended.stdout), ended.stdout
    assert b"\\x1b[2J" in ended.stdout


def test_output_of_the_command_is_passed_untouched(cli: CommandLine) -> None:
    assert cli.run("--", "printf", HOSTILE).stdout == HOSTILE.replace(b"%", b"%%")


def test_errors_name_what_was_needed_and_what_to_do(cli: CommandLine) -> None:
    said = cli.run("-v", "/no/such/folder:/x", "--", "true").stderr.decode().splitlines()
    assert said[0].startswith("immure: ")
    assert "/no/such/folder" in said[0]
    assert [line.split(":")[0].strip() for line in said[1:]] == ["needed", "have", "to do"]


def test_quiet_is_silent_about_ends_and_loud_about_errors(cli: CommandLine) -> None:
    assert cli.run("-q", "--timeout", "0.1", "--", "sleep", "5").stderr == b""
    assert cli.run("-q", "--", "no-such-command").stderr.startswith(b"immure: ")
