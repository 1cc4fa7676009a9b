"""A test that hangs when its time is over ends the run. The tests' own conftest.py, on a test made for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
HANGS = """
import time, pytest
@pytest.fixture
def never_ready():
    yield
    while True:
        time.sleep(0.1)
@pytest.mark.timeout(0.5)
def test_it(never_ready):
    time.sleep(60)
"""


@pytest.mark.slow
def test_it_says_where(tmp_path: Path) -> None:
    shorter = CONFTEST.read_text().replace("CLEANING_S = 240", "CLEANING_S = 1").replace("_LOOK_S = 5", "_LOOK_S = 0.2")
    assert shorter != CONFTEST.read_text()
    (tmp_path / "conftest.py").write_text(shorter)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = root: needs uid 0\n")
    (tmp_path / "test_it.py").write_text(HANGS)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert 'test_it.py", line 7 in never_ready' in ended.stderr
