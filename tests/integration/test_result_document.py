"""The JSON that `--result` writes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from .command_line import CommandLine, shell

pytestmark = pytest.mark.rootless

MEMBERS = {
    "schema", "id", "name", "runtime", "argv", "exit", "level", "report", "denials", "denials_complete",
    "usage", "truncated", "times_us", "plan_sha256", "host_sha256", "error",
}  # fmt: skip
USAGE = {"wall_ms", "cpu_ms", "memory_peak_bytes", "pids_peak", "stdout_bytes", "stderr_bytes"}


def result_of(cli: CommandLine, folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    path = folder / "result.json"
    ended = cli.run("--result", path, *words)
    assert b"Traceback" not in ended.stderr
    return ended.returncode, json.loads(path.read_bytes())


def test_every_member_is_there(cli: CommandLine, tmp_path: Path) -> None:
    status, document = result_of(cli, tmp_path, "--name", "grader", "--", *shell("echo abc; echo de >&2; exit 3"))
    assert status == 3
    assert set(document) == MEMBERS
    assert document["schema"] == "immure.result/v1"
    assert document["name"] == "grader"
    assert document["runtime"] == "process"
    assert document["argv"][:2] == ["sh", "-c"]
    assert document["exit"] == {"kind": "exited", "code": 3, "signal": None}
    assert document["level"] == {"asked": "L2", "awarded": "L2"}
    assert document["error"] is None
    assert set(document["truncated"]) == {"stdout", "stderr"}
    assert set(document["times_us"]) == {"plan", "create", "ready", "exec"}
    assert re.fullmatch("[0-9a-f]{64}", document["plan_sha256"])
    assert re.fullmatch("[0-9a-f]{64}", document["host_sha256"])
    assert isinstance(document["id"], str)
    assert document["id"]


def test_usage(cli: CommandLine, tmp_path: Path) -> None:
    _, document = result_of(
        cli,
        tmp_path,
        "--max-output",
        "1",
        "--",
        *shell("echo abc; echo de >&2; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"),
    )
    usage = document["usage"]
    assert set(usage) == USAGE
    assert (usage["stdout_bytes"], usage["stderr_bytes"]) == (4, 3)
    assert usage["cpu_ms"] > 0
    assert usage["wall_ms"] >= 1
    assert usage["memory_peak_bytes"] > 100_000


def test_the_report_has_a_row_for_each_clause(cli: CommandLine, tmp_path: Path) -> None:
    _, document = result_of(cli, tmp_path, "--", "true")
    rows = document["report"]
    assert all(set(row) == {"clause", "wanted", "got", "by", "why"} for row in rows)
    assert {row["got"] for row in rows} <= {"exact", "stronger", "approximated", "unenforceable"}
    clauses = {row["clause"] for row in rows}
    assert {"syscalls.profile", "files.landlock", "network.mode", "limits.pids", "limits.timeout_s"} <= clauses


@pytest.mark.parametrize(
    ("words", "status", "kind"),
    [
        (["--", *shell("kill -9 $$")], 137, "signaled"),
        (["--timeout", "0.2", "--", "sleep", "9"], 124, "timeout"),
        (["--max-output", "0.1", "--", "yes"], 125, "output"),
        (["--", *shell("exit 125")], 125, "exited"),
        (["--", "no-such-command"], 127, "refused"),
        (["--", "/etc"], 126, "refused"),
        (["-w", "/no/such/folder", "--", "true"], 126, "refused"),
        (["--level", "L4", "--", "true"], 125, "refused"),
        (["-v", "/no/such/folder:/x", "--", "true"], 125, "refused"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_kind_tells_our_125_from_the_commands(
    words: list[str], status: int, kind: str, cli: CommandLine, tmp_path: Path
) -> None:
    seen, document = result_of(cli, tmp_path, *words)
    assert seen == status
    assert document["exit"]["kind"] == kind
    assert document["schema"] == "immure.result/v1"


@pytest.mark.parametrize("words", [["--", "no-such-command"], ["--level", "L4", "--", "true"]], ids=str)
def test_a_refusal_has_the_error_and_every_member(words: list[str], cli: CommandLine, tmp_path: Path) -> None:
    _, document = result_of(cli, tmp_path, *words)
    assert set(document["error"]) == {"code", "message", "need", "have", "hint"}
    assert document["error"]["code"].startswith("IMM-")
    assert document["error"]["message"]
    assert set(document) == MEMBERS


def test_to_a_descriptor(cli: CommandLine) -> None:
    reader, writer = os.pipe()
    ended = cli.run("--result", f"fd:{writer}", "--", "echo", "out", pass_fds=[writer])
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        document = json.loads(file.read())
    assert document["exit"]["code"] == 0
    assert ended.stdout == b"out\n"


@pytest.mark.parametrize("target", ["fd:9", "fd:3", "fd:x", "fd:-1", "/no/such/folder/result"])
def test_a_target_that_cannot_be_written_is_found_before_the_command_runs(
    target: str, cli: CommandLine, tmp_path: Path
) -> None:
    ended = cli.run("--result", target, "--", "echo", "ran")
    assert ended.returncode == 125
    assert ended.stdout == b""
    assert b"--result" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_bytes_that_are_no_text_are_written_as_json(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    ended = cli.run("--result", path, "--", "printf", b"\xff\xfe")
    assert ended.returncode == 0
    assert ended.stdout == b"\xff\xfe"
    assert len(json.loads(path.read_bytes())["argv"]) == 2
