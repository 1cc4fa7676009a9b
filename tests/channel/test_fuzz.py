"""Frames by chance, a few of those that the tool makes by the million."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.rootless

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_channel.py"


def test_frames_by_chance_are_heard_or_refused() -> None:
    if not TOOL.is_file():
        pytest.skip("host: a copy of the tests alone")
    done = subprocess.run(
        [sys.executable, str(TOOL), "--side", "host", "--n", "60000", "--seed", "7"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no other fault" in done.stdout
    cases, heard, refused = (int(word) for word in done.stdout.split() if word.isdigit())
    assert cases >= 60_000
    assert heard > 10_000, "most of it would test the first bytes alone"
    assert refused > 3_000
