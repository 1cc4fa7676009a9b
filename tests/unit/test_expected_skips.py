"""Which skips a run may have. The tests' own conftest.py, on tests made for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import pytest
def test_passes(): pass
{body}
"""
SKIPS = '@pytest.mark.skip(reason="{}")\ndef test_skipped(): pass\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(CONFTEST, tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = root: needs uid 0\n")
    return tmp_path


def outcome(folder: Path, body: str, *, expect_all: bool = True) -> tuple[int, str]:
    (folder / "test_it.py").write_text(TESTS.format(body=body))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["IMMURE_EXPECT_ALL"] = "1" if expect_all else ""
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    return child.returncode, child.stdout + child.stderr


@pytest.mark.parametrize("reason", ["bwrap is not installed", "runsc (debian) is not installed: a hint"])
def test_a_program_that_is_missing_fails_the_run(reason: str, folder: Path) -> None:
    status, text = outcome(folder, SKIPS.format(reason))
    assert status == pytest.ExitCode.TESTS_FAILED
    assert f"FAILED test_it.py::test_skipped: {reason}" in text


def test_a_whole_file_that_is_skipped_fails_the_run(folder: Path) -> None:
    status, text = outcome(folder, 'pytest.importorskip("no_such_module")')
    assert status != pytest.ExitCode.OK
    assert "no_such_module" in text


def test_a_skip_within_a_test_fails_the_run(folder: Path) -> None:
    status, _ = outcome(folder, 'def test_skipped():\n    pytest.skip("gcc is not installed")')
    assert status == pytest.ExitCode.TESTS_FAILED


def test_nobody_minds_where_not_all_is_expected(folder: Path) -> None:
    assert outcome(folder, SKIPS.format("bwrap is not installed"), expect_all=False)[0] == pytest.ExitCode.OK


@pytest.mark.parametrize(
    "reason", ["needs uid 0", "root: the control needs root", "rootless: for plain users", "host: no cgroup v2 here"]
)
def test_what_no_package_brings_is_no_failure(reason: str, folder: Path) -> None:
    assert outcome(folder, SKIPS.format(reason))[0] == pytest.ExitCode.OK


def test_an_expected_failure_is_no_skip(folder: Path) -> None:
    body = '@pytest.mark.xfail(reason="bwrap is not installed")\ndef test_fails(): assert False\n'
    assert outcome(folder, body)[0] == pytest.ExitCode.OK


def test_a_failure_stays_one(folder: Path) -> None:
    status, text = outcome(folder, "def test_fails(): assert False\n")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "IMMURE_EXPECT_ALL" not in text


def test_tests_for_root_are_skipped_by_name_elsewhere(folder: Path) -> None:
    body = "@pytest.mark.root\ndef test_of_root(): pass\n"
    pretend = "\nimport os\nos.geteuid = lambda: 1001\n"
    conftest = folder / "conftest.py"
    conftest.write_text(conftest.read_text() + pretend)
    status, text = outcome(folder, body)
    assert status == pytest.ExitCode.OK
    assert "1 passed, 1 skipped" in text
