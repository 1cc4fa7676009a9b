"""`--dry-run` prints the plan and does nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from immure.host.native import native_program

from .command_line import CommandLine

pytestmark = pytest.mark.rootless


@pytest.fixture
def logged(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """A native program that writes down how it was called: its environment variable, and the log."""
    log = tmp_path / "log"
    program = tmp_path / "immure-init"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {native_program()} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    log.touch()
    return {"IMMURE_INIT": str(program)}, log


def test_no_spawner_is_started(logged: tuple[dict[str, str], Path], fresh_cli: CommandLine) -> None:
    env, log = logged
    ended = fresh_cli.run("--dry-run", "--", "touch", "/tmp/x", env=env)
    assert ended.returncode == 0, ended.stderr
    assert not [line for line in log.read_text().splitlines() if line.startswith("spawner")]
    assert fresh_cli.run("--", "true", env=env).returncode == 0
    assert [line for line in log.read_text().splitlines() if line.startswith("spawner")], "the log works"


def test_it_prints_every_kind_of_operation(tmp_path: Path, cli: CommandLine) -> None:
    ended = cli.run(
        "--dry-run", "-v", f"{tmp_path}:/work:rw", "--tmpfs", "/scratch:5", "--pids", "9", "--best-effort", "pids",
        "--name", "grader", "--", "true",
    )  # fmt: skip
    text = ended.stdout.decode()
    for part in (
        "namespaces ",
        "bind /usr on usr (ro,nosuid,nodev)",
        "mount proc on /proc",
        f"attach {tmp_path} on /work (nosuid,nodev)",
        "size=5m",
        "hostname grader",
        "landlock: /work",
        "no_new_privs",
        "seccomp filter of",
        "clause report:",
        "limits.pids",
    ):
        assert part in text
    assert ended.stderr == b""


def test_what_would_be_refused_is_refused(cli: CommandLine) -> None:
    ended = cli.run("--dry-run", "--level", "L4", "--", "true")
    assert (ended.returncode, ended.stdout) == (125, b"")


def test_nothing_is_remembered(fresh_cli: CommandLine) -> None:
    fresh_cli.run("--dry-run", "--", "true")
    assert not list(fresh_cli.cache.glob("run-*"))
