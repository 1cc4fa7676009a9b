"""A profile of the user's own takes nothing from the walls beside it, and earns no level by itself."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

import immure
from security.attempt import ATTEMPTS
from security.boxes import attempt_in_box
from security.scenes import staged

importlib.import_module("security.attempts.setuid")

PLANTING = [name for name in ATTEMPTS if name.startswith("setuid.")]


@pytest.fixture
def all_allowed(tmp_path: Path) -> str:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    return str(profile)


@pytest.mark.parametrize("name", PLANTING)
def test_no_setuid_file_whatever_the_profile(name: str, all_allowed: str, tmp_path: Path) -> None:
    attempt = ATTEMPTS[name]
    with staged(attempt.scenes, tmp_path / "stage") as stage:
        report = attempt_in_box(attempt, stage, level="L0", seccomp=all_allowed)
        for check in stage.checks:
            check()
    assert report.outcome == "denied", str(report)


@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_filter_that_denies_nothing_earns_no_level(level: str, all_allowed: str) -> None:
    with pytest.raises(immure.LevelNotReached):
        immure.run(["/bin/true"], level=level, seccomp=all_allowed)
    assert immure.run(["/bin/true"], level="L0", seccomp=all_allowed).level.awarded == "L0"


@pytest.mark.parametrize("level", ["L1", "L2"])
def test_the_network_of_the_host_earns_at_most_the_first_level(level: str) -> None:
    if level == "L1":
        assert immure.run(["/bin/true"], level="L1", network="host").level.awarded == "L1"
    else:
        with pytest.raises(immure.ImmureError):
            immure.run(["/bin/true"], level="L2", network="host")
