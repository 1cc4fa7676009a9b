"""The same attempts in a box of level L3. What succeeds outside is shown by `test_attempts.py`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import immure
from runscs import runsc_of, using
from security.attempt import ATTEMPTS, Attempt
from security.attempts import SUBJECTS
from security.boxes import run_in_box
from security.kept_boxes import KeptBoxes
from security.scenes import staged
from security.sentry_answers import ITS_OWN, OTHER_ERRORS, its_own, other_errors
from security.test_attempts import has_one_id

for subject in SUBJECTS:
    importlib.import_module(f"security.attempts.{subject}")

# Scenes that only root can set up.
ROOT_SCENES = {"planted_device", "setuid_in_mount", "file_handle"}
# What the older one is asked: what it shares with the host, and where it is known to hide less.
_ASKED_OF_DEBIANS = ("devices", "files", "identity", "network", "proc", "processes", "setuid")

# Where a plain user has no range of ids, its commands are the Sentry's root by number, whom it lets send such signals.
OPEN_WITH_ONE_ID = {"processes.send_signal_by_pipe-init"}

EACH = [
    pytest.param(version, attempt, id=f"{version}-{name}")
    for version in ("newest", "debian")
    for name, attempt in ATTEMPTS.items()
    if version == "newest" or name.startswith(_ASKED_OF_DEBIANS)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all attempts, since boxes that stay have their mounts in it."""
    folder = tmp_path_factory.mktemp("stage")
    for path in (folder, folder.parent):
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def boxes(version: str) -> Iterator[KeptBoxes]:
    kept = KeptBoxes()
    with using(runsc_of(version)):
        yield kept
        kept.close()


@pytest.mark.parametrize(("version", "attempt"), EACH, scope="module")
def test_denied_in_a_sentry(
    version: str, attempt: Attempt, boxes: KeptBoxes, folder: Path, record_property: Callable[[str, object], None]
) -> None:
    if os.geteuid() != 0 and (needed := ROOT_SCENES & set(attempt.scenes)):
        pytest.skip(f"root: only root can set up {needed}")
    if attempt.name in OPEN_WITH_ONE_ID and os.geteuid() != 0 and has_one_id():
        assert_harm_ends_at_the_box(attempt, boxes, folder)
        return
    with staged(attempt.scenes, folder) as stage:
        report = boxes.attempt(attempt, stage)
        for after in stage.checks:
            after()
        check = its_own(attempt)
        if report.outcome == "succeeded" and check is not None:
            check(boxes.box(stage), report)
            record_property("denied", (attempt.name, "ITS_OWN", report.detail))
            return
    assert report.outcome == "denied", str(report)
    errors = attempt.denied | other_errors(attempt)
    assert report.errno in errors, f"denied by {report}, not by one of {sorted(errors)}"
    record_property("denied", (attempt.name, report.errno, report.detail))


def assert_harm_ends_at_the_box(attempt: Attempt, boxes: KeptBoxes, folder: Path) -> None:
    with staged(attempt.scenes, folder) as stage, suppress(immure.BoxLost):
        boxes.attempt(attempt, stage)
    assert run_in_box(["/bin/true"], level="L3").ok


def test_every_answer_is_of_some_attempt() -> None:
    from fnmatch import filter as matching

    for pattern in (*OTHER_ERRORS, *ITS_OWN):
        assert matching(ATTEMPTS, pattern), pattern
