"""Each attempt is denied in the box, by an error that it declares, and succeeds outside."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from security.attempt import ATTEMPTS, Attempt
from security.attempts import SUBJECTS
from security.boxes import attempt_in_box
from security.outside import run_outside
from security.scenes import staged

for subject in SUBJECTS:
    importlib.import_module(f"security.attempts.{subject}")

# Scenes that only root can set up: there the attempt itself needs root, not its control alone.
ROOT_SCENES = {"planted_device", "setuid_in_mount", "file_handle"}

each_attempt = pytest.mark.parametrize(
    "attempt", [pytest.param(attempt, id=name) for name, attempt in ATTEMPTS.items()]
)


@each_attempt
def test_denied_in_the_box(attempt: Attempt, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    if os.geteuid() != 0 and (needed := ROOT_SCENES & set(attempt.scenes)):
        pytest.skip(f"root: only root can set up {needed}")
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


def test_the_table_is_as_large_as_promised() -> None:
    assert len(ATTEMPTS) >= 60
    assert {attempt.name.partition(".")[0] for attempt in ATTEMPTS.values()} == set(SUBJECTS)
