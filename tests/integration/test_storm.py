"""500 kills of callers and spawners at random moments leave nothing, and 200 where boxes have a Sentry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runscs import runsc_of

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

ROUNDS = {"L2": 500, "L3": 200}
SECONDS = 170


@pytest.fixture(scope="module", params=ROUNDS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The storm, once for all tests of this file."""
    level, rounds = request.param, ROUNDS[request.param]
    environment = {**os.environ, "STORM_LEVEL": level}
    if level == "L3":
        environment["IMMURE_RUNSC"] = str(runsc_of("newest"))
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs uid 0 and unshare(1)")
    folder = tmp_path_factory.mktemp("storm")
    tests = Path(__file__).parent.parent
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-m", "integration.storm"]
    ended = subprocess.run(
        [*command, str(folder), str(rounds), str(SECONDS)],
        cwd=tests, env=environment, stdout=subprocess.PIPE, timeout=SECONDS + 60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    return {"rounds": rounds, **json.loads(ended.stdout)}


def test_there_were_enough_kills(report: dict[str, Any]) -> None:
    assert report["kills"] == report["rounds"]
    assert report["seconds"] < SECONDS
    assert min(report["caller"], report["spawner"]) > report["rounds"] // 3


def test_most_of_them_hit_a_running_workload(report: dict[str, Any]) -> None:
    assert report["running"] > report["rounds"] * 0.55, report["running"]


def test_every_surviving_caller_got_a_clear_error_and_could_go_on(report: dict[str, Any]) -> None:
    assert report["unclear"] == []
    assert report["next_run"] == 0


def test_nobody_hangs(report: dict[str, Any]) -> None:
    assert report["stuck"] == []


@pytest.mark.parametrize("kind", ["processes", "mounts", "cgroups", "locked"])
def test_nothing_is_left(kind: str, report: dict[str, Any]) -> None:
    assert report[kind] == []


def test_no_file_is_left_but_the_lock_file(report: dict[str, Any]) -> None:
    assert report["files"] == ["ids.lock"]
