"""Broken documents, a few of those that the tool makes by the million."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_policy.py"


def test_broken_documents_are_read_or_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--n", "20000", "--seed", "7"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no other fault" in done.stdout
    read = int(done.stdout.split()[2])
    assert read > 500, "most of it would test the parser's first lines alone"
