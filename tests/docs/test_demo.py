"""The demo shows what it says, and fails where something is not denied."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from documents import ROOT

sys.path.insert(0, str(ROOT / "examples"))


def run_demo() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "examples/demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    return run_demo()


def test_it_succeeds(demo: subprocess.CompletedProcess[str]) -> None:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert not demo.stderr


def test_it_shows_the_useful_output(demo: subprocess.CompletedProcess[str]) -> None:
    assert re.search(r"^  all +227 +889 +27,267\.21 +13\.2%$", demo.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("list ~/.ssh", "ENOENT"),
        ("read ~/.ssh/id_ed25519", "ENOENT"),
        ("… by /proc/PARENT/root", "EACCES"),
        ("connect to your listener", "ECONNREFUSED"),
        ("ask your resolver", "ECONNREFUSED"),
        ("add a file to the folder", "EROFS"),
        ("change orders.csv", "EROFS"),
        ("fill the disk", "ENOSPC"),
    ],
)
def test_an_attempt_succeeds_outside_and_is_denied_inside(
    demo: subprocess.CompletedProcess[str], attempt: str, error: str
) -> None:
    assert re.search(rf"^{re.escape(attempt)} +succeeded +denied {error} +\S+", demo.stdout, re.MULTILINE)


def test_it_shows_clauses_level_and_times(demo: subprocess.CompletedProcess[str]) -> None:
    assert re.search(r"^files\.landlock +auto +exact +landlock/\d+", demo.stdout, re.MULTILINE)
    assert "Level: L2 asked for, L2 measured" in demo.stdout
    assert re.search(r"^syscalls\.default_deny +yes ", demo.stdout, re.MULTILINE)
    assert re.search(r"p50 \d+\.\d ms", demo.stdout)


def test_it_is_plain_text_where_nobody_watches(demo: subprocess.CompletedProcess[str]) -> None:
    assert "\x1b" not in demo.stdout
    assert max(len(line.rstrip()) for line in demo.stdout.splitlines()) <= 100


def finding(succeeded: bool, error: str = "") -> dict[str, object]:
    return {"succeeded": succeeded, "error": error, "seen": ""}


@pytest.mark.parametrize(
    ("outside", "inside", "problem"),
    [
        (finding(True), finding(False, "ENOENT"), ""),
        (finding(True), finding(True), "succeeded in the box"),
        (finding(True), finding(False, "EAGAIN"), "no denial by a wall"),
        (finding(False, "ENOENT"), finding(False, "ENOENT"), "failed outside too"),
        (None, finding(False, "ENOENT"), "failed outside too"),
        (finding(True), None, "said nothing"),
    ],
)
def test_what_is_no_denial_is_a_problem(outside: object, inside: object, problem: str) -> None:
    from attempts import Attempt, compare

    row = compare(Attempt("read it", ("read",), {"ENOENT": "root"}), {"read": outside}, {"read": inside})
    assert problem in row.problem if problem else not row.problem


def test_a_breach_is_its_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Sabotaged: what the box must not write is in the caller's folder afterwards."""
    import demo

    from immure import Sandbox

    real = demo.run_inside

    def breached(box: Sandbox, stage: demo.Stage) -> object:
        result = real(box, stage)
        (stage.inside / "planted.sh").write_text("left by the box\n")
        return result

    monkeypatch.setattr(demo, "run_inside", breached)
    monkeypatch.setattr(demo, "FRESH_BOXES", 1)
    assert demo.main() == 1
    assert "planted.sh in the caller's folder has changed" in capsys.readouterr().out
