"""Boxes in workers of `multiprocessing` and of `concurrent.futures`, by every way of starting them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import eventually, running

pytestmark = pytest.mark.rootless


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_have_boxes_of_their_own(method: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "integration.workers", method],
        cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, timeout=50, check=True,
    )  # fmt: skip
    report = json.loads(ended.stdout)
    assert report["started"] == "still here\n", "a command of the parent's goes on"
    assert report["asked"] == "fine\n"
    for number, found in enumerate(report["workers"]):
        assert found["answers"] == [f"{number}\n"] * 2
        assert found["pid"] != report["parent"]
        if method == "fork":
            for part in ("another process", str(report["parent"]), str(found["pid"]), "after the fork"):
                assert part in found["refused"]
    left = [found["left"] for found in report["workers"]]
    assert eventually(lambda: not any(running(pid) for pid in left)), "what a worker leaves open ends with it"
