"""The command line's grammar: every flag, and what a usage error ends with."""

from __future__ import annotations

from typing import Any

import pytest

from immure.cli.commands import dispatch
from immure.cli.parser import make_parser
from immure.spec.models import PROTECTIONS

FLAGS: list[tuple[list[str], str, Any]] = [
    (["-f", "a.yaml"], "file", "a.yaml"),
    (["--file", "a.yaml"], "file", "a.yaml"),
    (["--preset", "python"], "preset", "python"),
    (["--level", "L1"], "level", "L1"),
    (["--runtime", "process"], "runtime", "process"),
    (["--image", "host"], "image", "host"),
    (["-v", "a:/a"], "mount", ["a:/a"]),
    (["--mount", "a:/a:rw", "-v", "b:/b"], "mount", ["a:/a:rw", "b:/b"]),
    (["--tmpfs", "/a", "--tmpfs", "/b:4"], "tmpfs", ["/a", "/b:4"]),
    (["-e", "A", "--env", "B=c"], "env", ["A", "B=c"]),
    (["-w", "/a"], "workdir", "/a"),
    (["--workdir", "/a"], "workdir", "/a"),
    (["-u", "7"], "user", 7),
    (["--user", "7"], "user", 7),
    (["-i"], "interactive", True),
    (["--interactive"], "interactive", True),
    (["-t"], "tty", True),
    (["--tty"], "tty", True),
    (["--net", "host"], "net", "host"),
    (["--memory", "64"], "memory", 64),
    (["--cpus", "1.5"], "cpus", 1.5),
    (["--pids", "9"], "pids", 9),
    (["--disk", "9"], "disk", 9),
    (["--timeout", "2.5"], "timeout", 2.5),
    (["--max-output", "0.5"], "max_output", 0.5),
    (["--seccomp", "a.json"], "seccomp", "a.json"),
    (["--best-effort", "memory", "--best-effort", "landlock"], "best_effort", ["memory", "landlock"]),
    (["--name", "box"], "name", "box"),
    (["--keep"], "keep", True),
    (["-d"], "detach", True),
    (["--detach"], "detach", True),
    (["--dry-run"], "dry_run", True),
    (["--denials"], "denials", True),
    (["--result", "fd:3"], "result", "fd:3"),
    (["-q"], "quiet", True),
    (["--quiet"], "quiet", True),
]


@pytest.mark.parametrize(("typed", "name", "value"), FLAGS, ids=[" ".join(typed) for typed, _, _ in FLAGS])
def test_a_flag_of_run(typed: list[str], name: str, value: Any) -> None:
    options = make_parser().parse_args(["run", *typed])
    assert getattr(options, name) == value
    default = make_parser().parse_args(["run"])
    changed = {key for key, one in vars(options).items() if one != getattr(default, key)}
    assert changed == {name}


def test_every_flag_of_run_is_here() -> None:
    known = set(vars(make_parser().parse_args(["run"]))) - {"version", "verb", "command"}
    assert {name for _, name, _ in FLAGS} == known


def test_the_flags_are_those_of_the_design() -> None:
    """DESIGN §9, without what later versions bring: --allow."""
    promised = (
        "-f --preset --level --runtime --image -v --mount --tmpfs -e -w -u -i -t --net --memory --cpus --pids "
        "--timeout --max-output --seccomp --best-effort --name --keep --dry-run --result -q"
    )
    assert set(promised.split()) <= {flag for typed, _, _ in FLAGS for flag in typed}


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_every_protection_can_be_opted_down(protection: str) -> None:
    assert make_parser().parse_args(["run", "--best-effort", protection]).best_effort == [protection]


USAGE_ERRORS = [
    (["run", "--nonsense", "--", "true"], 125),
    (["run", "--memory", "lots", "--", "true"], 125),
    (["run", "--memory", "1.5", "--", "true"], 125),
    (["run", "--cpus", "all", "--", "true"], 125),
    (["run", "-u", "root", "--", "true"], 125),
    (["run", "--best-effort", "seccomp", "--", "true"], 125),
    (["run", "-f"], 125),
    # A word cut short might be another flag tomorrow.
    (["run", "--lev", "L1", "--", "true"], 125),
    (["run", "--time", "1", "--", "true"], 125),
    (["run"], 125),
    (["run", "--"], 125),
    (["run", "stray", "--", "true"], 125),
    (["run", "--level", "L9", "--", "true"], 125),
    (["run", "--preset", "cobol", "--", "true"], 125),
    (["run", "-f", "/nonexistent/a.yaml", "--", "true"], 125),
    ([], 2),
    (["dance"], 2),
    (["--nonsense"], 2),
    (["doctor", "--nonsense"], 2),
    (["doctor", "--level", "L9"], 2),
    (["doctor", "stray"], 2),
]


@pytest.mark.parametrize(("argv", "status"), USAGE_ERRORS, ids=str)
def test_a_usage_error(argv: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(argv) == status
    seen = capsys.readouterr()
    assert seen.err or argv == []
    # Standard output is the command's.
    assert seen.out == "" or argv == []


@pytest.mark.parametrize("argv", [["--help"], ["run", "--help"], ["doctor", "--help"], ["--version"]])
def test_help_is_no_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(argv) == 0
    assert "immure" in capsys.readouterr().out


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    import immure

    dispatch(["--version"])
    assert capsys.readouterr().out == f"immure {immure.__version__}\n"


def test_an_error_of_the_grammar_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    dispatch(["run", "--best-effort", "\x1b[2J", "--", "true"])
    assert "\x1b" not in capsys.readouterr().err
