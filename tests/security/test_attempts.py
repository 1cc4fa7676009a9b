"""Each attempt is denied in the box, by an error that it declares, and succeeds outside."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

import immure
from security.attempt import ATTEMPTS, Attempt
from security.attempts import SUBJECTS
from security.boxes import attempt_in_box, run_in_box
from security.outside import run_outside
from security.scenes import staged

for subject in SUBJECTS:
    importlib.import_module(f"security.attempts.{subject}")

# Scenes that only root can set up: there the attempt itself needs root, not its control alone.
ROOT_SCENES = {"planted_device", "setuid_in_mount", "file_handle"}

# Where a plain user has no range of ids, init runs as the command's own user. What that opens ends at the box.
OPEN_WITH_ONE_ID = {
    *(f"processes.send_signal-init-{name}" for name in ("SIGCONT", "SIGKILL", "SIGSTOP", "SIGTERM")),
    "processes.send_signal_by_descriptor-init",
    "processes.send_signal_by_pipe-init",
    "processes.send_signal_to_thread-init-tgkill",
    "processes.send_signal_to_thread-init-tkill",
    "processes.queue_signal-init",
    "processes.limits_of_process-init",
}

each_attempt = pytest.mark.parametrize(
    "attempt", [pytest.param(attempt, id=name) for name, attempt in ATTEMPTS.items()]
)


@each_attempt
def test_denied_in_the_box(attempt: Attempt, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    if os.geteuid() != 0 and (needed := ROOT_SCENES & set(attempt.scenes)):
        pytest.skip(f"root: only root can set up {needed}")
    if attempt.name in OPEN_WITH_ONE_ID and has_one_id():
        assert_harm_ends_at_the_box(attempt, tmp_path)
        return
    with staged(attempt.scenes, tmp_path) as stage:
        report = attempt_in_box(attempt, stage)
        for check in stage.checks:
            check()
    assert report.outcome == "denied", str(report)
    assert report.errno in attempt.denied, f"denied by {report}, not by one of {sorted(attempt.denied)}"
    record_property("denied", (attempt.name, report.errno, report.detail))


@each_attempt
def test_succeeds_outside(attempt: Attempt, tmp_path: Path) -> None:
    if attempt.needs_root and os.geteuid() != 0:
        pytest.skip("root: the control needs root")
    with staged(attempt.scenes, tmp_path) as stage:
        report = run_outside(attempt, stage)
    assert report.outcome == "succeeded", str(report)


def assert_harm_ends_at_the_box(attempt: Attempt, folder: Path) -> None:
    with staged(attempt.scenes, folder) as stage, suppress(immure.BoxLost):
        attempt_in_box(attempt, stage, limits={"timeout_s": 5})
    assert run_in_box(["/bin/true"]).ok


@cache
def has_one_id() -> bool:
    lines = run_in_box(["/bin/cat", "/proc/self/uid_map"]).stdout.text().splitlines()
    return sum(int(line.split()[2]) for line in lines) == 1


def test_the_table_is_as_large_as_promised() -> None:
    assert len(ATTEMPTS) >= 60
    assert {attempt.name.partition(".")[0] for attempt in ATTEMPTS.values()} == set(SUBJECTS)
