"""The box that attempts are made in: level L2 where nothing else is said, every default, the stage's mounts alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import immure
from security.attempt import Attempt
from security.build import copied_attempts
from security.report import Report, parsed
from security.scenes import Stage

_LEVELS = ("L0", "L1", "L2", "L3", "L4")
_REFUSED = 125

# Only the command line passes standard input on as it is. It starts with a harmless one: what is passed may be
# nothing that an interpreter starts with.
_COMMAND_LINE = """
import os
os.dup2({stdin}, 0)
from immure.cli.main import run_and_exit
run_and_exit()
"""


def run_in_box(argv: Sequence[str], **options: Any) -> immure.Result:
    """Run in a box of level L2 or of another, of which that much was measured. It is ended after a minute."""
    limits = {"timeout_s": 60, **options.pop("limits", {})}
    result = immure.run(list(argv), **{"level": "L2", "network": "none", "user": 1000, "limits": limits, **options})
    assert _LEVELS.index(result.level.awarded) >= _LEVELS.index(options.get("level", "L2"))
    return result


def attempt_in_box(attempt: Attempt, stage: Stage, **options: Any) -> Report:
    command = stage.command("/attempts", attempt, stage.inside)
    mounts = [*stage.mounts, (str(copied_attempts()), "/attempts", "ro")]
    if stage.stdin is not None:
        return _attempt_by_command_line(attempt.name, command, mounts, stage.stdin, options.get("level", "L2"))
    result = run_in_box(command, mounts=mounts, **options)
    return parsed(attempt.name, result.stdout.text(), f"{result.exit}, {result.stderr.text()}")


def _attempt_by_command_line(
    name: str, command: list[str], mounts: list[tuple[str, ...]], stdin: int, level: str
) -> Report:
    options = ["--level", level, *(word for mount in mounts for word in ("-v", ":".join(mount)))]
    result = subprocess.run(
        [sys.executable, "-c", _COMMAND_LINE.format(stdin=stdin), "run", "-i", *options, "--", *command],
        stdin=subprocess.DEVNULL,
        pass_fds=[stdin],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if result.returncode == _REFUSED and result.stderr.startswith("immure: "):
        return Report(name, "denied", "REFUSED", result.stderr)
    return parsed(name, result.stdout, f"exit {result.returncode}, {result.stderr}")
