"""Compiled programs against the reference, over whole profiles: the tool's run with fewer calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from seccomp_cases import CORPUS, needs_corpus

from immure.policy.seccomp import PRESETS

TOOL = Path(__file__).parents[2] / "tools" / "check_agreement.py"
FOLDERS = ("moby", "containers-common", "runc", "spo")


def agreed(*profiles: str) -> str:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--n", "60000", *profiles],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_our_presets() -> None:
    said = agreed(*PRESETS)
    assert said.count("10001 calls agree") == 6 * len(PRESETS)


@needs_corpus
@pytest.mark.parametrize("folder", FOLDERS)
def test_foreign_profiles(folder: str) -> None:
    files = sorted(map(str, (Path(CORPUS or "") / folder).glob("*.json")))
    # One of them is a volume, and no profile.
    files = [name for name in files if not name.endswith("volume-source.json")]
    assert files
    assert agreed(*files).count("10001 calls agree") == 6 * len(files)
