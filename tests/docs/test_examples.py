"""The examples do what they say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from documents import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "examples").is_dir(), reason="host: a copy of the tests alone")

SHOWN: dict[str, list[str]] = {
    "grader": ["alice    4/4", "bob      2/4", "carol    0/4  timeout", "dave     0/4", "erin     0/4", "mallory  0/4"],
    "agent_tools": ["  Hanoi,1676", "  [exited 6]", "  [timeout 9]", "Read-only file system", "  data.csv 38"],
    "plugin_host": ["upper  says 'HELLO'", "stuck  was ended: TimeoutError", "liar   was", "flood  was", "gone   was"],
    "ci_step": ["  OK", "  no network here", "built: greet.pyz"],
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_an_example_shows_what_it_is_about(name: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / f"{name}.py"],
        capture_output=True, text=True, timeout=100, env=environment, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in SHOWN[name] if line not in done.stdout] == [], done.stdout
