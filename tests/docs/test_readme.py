"""README's first screen: its capture is fresh, and what it shows runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, Block, blocks, environment

INSTALL = "pip install .\n"


def test_the_capture_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "tools/capture_demo.py", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"run python tools/capture_demo.py\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", blocks("README.md", languages=("python",)), ids=str)
def test_a_python_snippet_runs(block: Block) -> None:
    done = subprocess.run([sys.executable, "-c", block.text], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "27,267.21" in done.stdout
    assert done.stdout.rstrip().endswith("L2")


@pytest.mark.parametrize(
    "block", [block for block in blocks("README.md", languages=("sh",)) if block.text != INSTALL], ids=str
)
def test_a_shell_snippet_runs(block: Block, tmp_path: Path) -> None:
    if block.text.startswith("make "):
        # What it starts contains this test.
        targets = re.findall(r"^make (\w+)", block.text, re.MULTILINE)
        command = ["make", "--dry-run", "--always-make", *targets]
    else:
        command = ["bash", "-e", "-c", block.text]
    done = subprocess.run(command, cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_install_line_works(tmp_path: Path) -> None:
    """In a copy of the checkout, into a folder of its own, with what a build needs taken from this environment."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is missing")
    assert [block.text for block in blocks("README.md", languages=("sh",))].count(INSTALL) == 1
    copy, target = tmp_path / "copy", tmp_path / "installed"
    ignored = shutil.ignore_patterns(".git", ".venv", "target", "build", "_native", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "--target", str(target), "."],
        cwd=copy,
        env={**os.environ, "CARGO_TARGET_DIR": str(tmp_path / "cargo")},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert built.returncode == 0, built.stderr
    assert os.access(target / "immure/_native/immure-init", os.X_OK)
    ran = subprocess.run(
        [str(target / "bin/immure"), "run", "--", "echo", "installed"],
        env={**os.environ, "PYTHONPATH": str(target)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, "installed\n"), ran.stderr
