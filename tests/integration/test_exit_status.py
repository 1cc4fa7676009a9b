"""How a command ends, as the Python interface and the command line tell it."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from immure import ExecFailed, ImmureError, Sandbox, run

from .command_line import CommandLine, python, shell

pytestmark = pytest.mark.rootless


@dataclass(frozen=True)
class Case:
    argv: tuple[str, ...]
    kind: str
    code: int | None
    signal: int | None
    status: int
    keywords: dict[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def case(argv: object, kind: str, code: int | None, signal: int | None, status: int, **keywords: Any) -> Case:
    options = {
        "timeout_s": "--timeout",
        "output_mib": "--max-output",
    }
    words = tuple(word for name, value in keywords.items() for word in (options[name], str(value)))
    return Case(tuple(argv), kind, code, signal, status, keywords, words)  # type: ignore[arg-type]


CASES = {
    "success": case(["true"], "exited", 0, None, 0),
    "failure": case(["false"], "exited", 1, None, 1),
    "own status": case(shell("exit 42"), "exited", 42, None, 42),
    "own 124": case(shell("exit 124"), "exited", 124, None, 124),
    "own 125": case(shell("exit 125"), "exited", 125, None, 125),
    "own 255": case(shell("exit 255"), "exited", 255, None, 255),
    "terminated": case(shell("kill -TERM $$"), "signaled", None, 15, 143),
    "killed": case(shell("kill -KILL $$"), "signaled", None, 9, 137),
    "aborted": case(shell("kill -ABRT $$"), "signaled", None, 6, 134),
    "crashed": case(shell("kill -SEGV $$"), "signaled", None, 11, 139),
    "real-time signal": case(shell("kill -64 $$"), "signaled", None, 64, 192),
    "timeout": case(["sleep", "30"], "timeout", None, 9, 124, timeout_s=0.3),
    "timeout, deaf": case(shell("trap '' TERM INT HUP; sleep 30; sleep 30"), "timeout", None, 9, 124, timeout_s=0.3),
    "flood": case(["yes"], "output", None, 9, 125, output_mib=0.25),
}


def ended_by_stopping(expected: Case) -> bool:
    """Then whether the command's own end was still seen is a matter of chance."""
    return expected.kind in ("timeout", "output")


@pytest.mark.parametrize("expected", CASES.values(), ids=CASES.keys())
def test_run(expected: Case) -> None:
    result = run(expected.argv, **expected.keywords)
    assert result.exit.kind == expected.kind
    if not ended_by_stopping(expected):
        assert (result.exit.code, result.exit.signal) == (expected.code, expected.signal)
    assert result.ok == (expected.status == 0)


@pytest.mark.parametrize("expected", CASES.values(), ids=CASES.keys())
def test_exec(expected: Case) -> None:
    with Sandbox() as box:
        result = box.exec(expected.argv, **expected.keywords)
        assert (result.exit.kind, result.exit.code, result.exit.signal) == (
            expected.kind,
            expected.code,
            expected.signal,
        )
        assert box.exec(["true"]).ok, "the box can be used afterwards"


@pytest.mark.parametrize("expected", CASES.values(), ids=CASES.keys())
def test_command_line(expected: Case, cli: CommandLine) -> None:
    ended = cli.run("-q", *expected.options, "--", *expected.argv)
    assert ended.returncode == expected.status
    assert ended.stderr == b""


@pytest.mark.parametrize("kind", ["timeout", "flood"])
def test_the_command_line_says_why_it_ended_a_command(kind: str, cli: CommandLine) -> None:
    expected = CASES[kind]
    said = cli.run(*expected.options, "--", *expected.argv).stderr.decode()
    assert said.startswith("immure: ended")
    assert ("timeout_s" if kind == "timeout" else "output_mib") in said


def not_executable(folder: Path) -> list[tuple[list[str], int]]:
    """Commands that can't be started, and the exit status of each."""
    plain = folder / "plain"
    plain.write_text("#!/bin/sh\n")
    garbage = folder / "garbage"
    garbage.write_bytes(b"\x7fELF and nothing more")
    garbage.chmod(0o755)
    no_interpreter = folder / "orphan"
    no_interpreter.write_text("#!/no/such/interpreter\n")
    no_interpreter.chmod(0o755)
    return [
        (["no-such-command"], 127),
        (["/no/such/command"], 127),
        (["/etc/passwd/command"], 127),
        (["./relative"], 127),
        (["/work/orphan"], 127),
        (["/work"], 126),
        (["/work/plain"], 126),
        (["/work/garbage"], 126),
        ([""], 127),
    ]


def test_commands_that_cannot_be_started(tmp_path: Path, cli: CommandLine) -> None:
    for argv, status in not_executable(tmp_path):
        with pytest.raises(ExecFailed) as caught:
            run(argv, mounts=[(tmp_path, "/work", "ro")], workdir="/tmp")
        assert caught.value.exit_status == status, argv
        assert caught.value.have, "the kernel's answer is told"
        ended = cli.run("-v", f"{tmp_path}:/work", "-w", "/tmp", "--", *argv)
        assert ended.returncode == status, argv
        assert ended.stdout == b""
        assert ended.stderr.startswith(b"immure: "), ended.stderr


def test_a_command_that_cannot_be_started_leaves_the_box_usable() -> None:
    with Sandbox() as box:
        for argv, status in ((["no-such-command"], 127), (["/etc"], 126)):
            with pytest.raises(ExecFailed) as caught:
                box.exec(argv)
            assert caught.value.exit_status == status
        assert box.exec(["true"]).ok


def test_the_hint_names_the_mount_that_would_bring_the_command(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "host-tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho here\n")
    tool.chmod(0o755)
    with pytest.raises(ExecFailed) as caught:
        run([str(tool)])
    assert str(tool.parent.parent) in str(caught.value.hint)
    mount = (tool.parent.parent, tool.parent.parent, "ro")
    tmp_path.chmod(tmp_path.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    assert run([str(tool)], mounts=[mount]).stdout == b"here\n"


def test_a_filter_that_refuses_execve_is_an_error_of_the_command(tmp_path: Path, cli: CommandLine) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_ERRNO"}]}'
    )
    ended = cli.run("--level", "L1", "--seccomp", profile, "--", "true")
    assert ended.returncode in (125, 126)
    assert b"immure: " in ended.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--no-such-option", "--", "true"],
        ["--level", "L9", "--", "true"],
        ["--level", "L4", "--", "true"],
        ["--timeout", "soon", "--", "true"],
        ["--timeout", "nan", "--", "true"],
        ["--timeout", "0", "--", "true"],
        ["--memory", "1", "--", "true"],
        ["--pids", "0", "--", "true"],
        ["--cpus", "nan", "--", "true"],
        ["-u", "70000", "--", "true"],
        ["-u", "-1", "--", "true"],
        ["-w", "relative", "--", "true"],
        ["-v", "/usr", "--", "true"],
        ["-v", "/no/such/folder:/x", "--", "true"],
        ["-v", "/usr:/x:rwx", "--", "true"],
        ["-v", "/usr:/", "--", "true"],
        ["-v", "/usr:/x/../..", "--", "true"],
        ["-v", "/usr:/proc/x", "--", "true"],
        ["--tmpfs", "/x:big", "--", "true"],
        ["-e", "=x", "--", "true"],
        ["-e", "IMMURE_TEST_NOT_SET", "--", "true"],
        ["--net", "bridge", "--", "true"],
        ["--net", "host", "--", "true"],
        ["--runtime", "docker", "--", "true"],
        ["--image", "debian", "--", "true"],
        ["--preset", "perl", "--", "true"],
        ["--best-effort", "everything", "--", "true"],
        ["--seccomp", "/no/such/profile", "--", "true"],
        ["-f", "/no/such/spec", "--", "true"],
        ["--name", "Not A Host Name", "--", "true"],
        ["--name", "n" * 64, "--", "true"],
        ["--"],
        [],
    ],
    ids=lambda words: " ".join(words)[:40] or "nothing",
)
def test_bad_input_is_125(words: list[str], cli: CommandLine) -> None:
    ended = cli.run(*words)
    assert ended.returncode == 125
    assert ended.stdout == b""
    assert b"Traceback" not in ended.stderr
    assert b"immure" in ended.stderr


@pytest.mark.parametrize(
    "keywords",
    [
        {"level": "L9"},
        {"no_such_keyword": 1},
        {"timeout_s": float("nan")},
        {"timeout_s": -1},
        {"user": -1},
        {"user": 65_536},
        {"workdir": "relative"},
        {"mounts": ["/usr"]},
        {"mounts": [("/no/such/folder", "/x")]},
        {"env": {"A=B": "x"}},
        {"env": {"": "x"}},
        {"env": {"A": "x\0y"}},
        {"name": "Not A Host Name"},
        {"name": ""},
    ],
    ids=str,
)
def test_bad_keywords_are_errors_of_ours(keywords: dict[str, Any]) -> None:
    with pytest.raises(ImmureError):
        run(["true"], **keywords)


@pytest.mark.parametrize("argv", [[], "true", b"true", ["a\0b"], [b"a\0b"]], ids=repr)
def test_bad_commands_are_errors_of_ours(argv: Any) -> None:
    with pytest.raises(ImmureError):
        run(argv)


@pytest.mark.parametrize(
    "keywords",
    [{"user": -1}, {"user": 1 << 32}, {"user": 70_000}, {"env": {"A=B": "x"}}, {"env": {"A": "\0"}}],
    ids=str,
)
def test_bad_keywords_of_exec_are_errors_of_ours(keywords: dict[str, Any]) -> None:
    with Sandbox() as box:
        with pytest.raises(ImmureError):
            box.exec(["true"], **keywords)
        assert box.exec(["true"]).ok


def test_a_command_sees_default_signal_dispositions(cli: CommandLine) -> None:
    program = "print([l for l in open('/proc/self/status') if l[:6] in ('SigIgn','SigBlk')])"
    # Python ignores SIGPIPE and SIGXFSZ by itself: 1 << 12 | 1 << 24.
    for seen in (run(python(program)).stdout, cli.run("--", *python(program)).stdout):
        assert b"SigBlk:\\t0000000000000000" in seen
        assert b"SigIgn:\\t0000000001001000" in seen
