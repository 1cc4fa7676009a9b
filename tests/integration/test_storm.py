"""500 kills of callers and spawners at random moments leave nothing, 200 where boxes have a Sentry, 200 where they are
machines of QEMU's, and 10 where of Firecracker's: as many as those with IMMURE_TEST_SLOW_FACES, which takes twenty
minutes where KVM interprets a guest's kernel.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.faces import ALL
from machine.machines import make_image, needs_qemu
from runscs import runsc_of
from vmm_programs import binaries, guest_kernel

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(6600 if ALL else 600)]

ROUNDS = {"L2": 500, "L3": 200, "qemu": 200, "firecracker": 200 if ALL else 10}
#: At most.
SECONDS = {"L2": 170, "L3": 170, "qemu": 400, "firecracker": 6000 if ALL else 400}


@pytest.fixture(scope="module", params=ROUNDS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The storm, once for all tests of this file."""
    kind = request.param
    rounds, seconds = ROUNDS[kind], SECONDS[kind]
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs uid 0 and unshare(1)")
    folder, temporary = tmp_path_factory.mktemp("storm"), tmp_path_factory.mktemp("temporary")
    environment = {**os.environ, **settings_of(kind, temporary), "TMPDIR": str(temporary)}
    tests = Path(__file__).parent.parent
    command = ["unshare", "-m", "--propagation", "private", sys.executable, "-m", "integration.storm"]
    ended = subprocess.run(
        [*command, str(folder), str(rounds), str(seconds)],
        cwd=tests, env=environment, stdout=subprocess.PIPE, timeout=seconds + 60, check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    found = json.loads(ended.stdout)
    found["snapshots"] = [str(one) for one in (*temporary.glob("immure-*"), *folder.glob(".*"))]
    return {"rounds": rounds, "at_most": seconds, **found}


def settings_of(kind: str, temporary: Path) -> dict[str, str]:
    """Variables for what the boxes are to be."""
    if kind == "L2":
        return {"STORM_SPEC": '{"level": "L2"}'}
    if kind == "L3":
        return {"STORM_SPEC": '{"level": "L3"}', "IMMURE_RUNSC": str(runsc_of("newest"))}
    needs_qemu()
    image = make_image(temporary / "image")
    spec = {"level": "L3", "runtime": kind, "image": str(image), "workdir": "/", "memory_mib": 96}
    settings = {"STORM_SPEC": json.dumps(spec), "IMMURE_KERNEL": str(guest_kernel())}
    return settings | ({"IMMURE_FIRECRACKER": str(binaries() / "firecracker")} if kind == "firecracker" else {})


def test_there_were_enough_kills(report: dict[str, Any]) -> None:
    assert report["kills"] == report["rounds"]
    assert report["seconds"] < report["at_most"]
    assert min(report["caller"], report["spawner"]) > report["rounds"] // 3


def test_most_of_them_hit_a_running_workload(report: dict[str, Any]) -> None:
    assert report["running"] > report["rounds"] * 0.55, report["running"]


def test_every_surviving_caller_got_a_clear_error_and_could_go_on(report: dict[str, Any]) -> None:
    assert report["unclear"] == []
    assert report["next_run"] == 0


def test_nobody_hangs(report: dict[str, Any]) -> None:
    assert report["stuck"] == []


@pytest.mark.parametrize("kind", ["processes", "mounts", "cgroups", "locked", "snapshots"])
def test_nothing_is_left(kind: str, report: dict[str, Any]) -> None:
    assert report[kind] == []


def test_no_file_is_left_but_the_lock_file(report: dict[str, Any]) -> None:
    assert report["files"] == ["ids.lock"]
