"""Compiled programs against the reference, over whole profiles: the tool's run with fewer calls."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from seccomp_cases import CORPUS, CORPUS_PROFILES, needs_corpus

from immure.policy.seccomp import PRESETS

TOOL = Path(__file__).parents[2] / "tools" / "check_agreement.py"


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
@pytest.mark.parametrize("name", CORPUS_PROFILES)
def test_foreign_profiles(name: str) -> None:
    assert agreed(str(Path(CORPUS or "") / name)).count("10001 calls agree") == 6
