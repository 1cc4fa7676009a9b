"""What runs below a process, with and without a kernel that lists children (CONFIG_PROC_CHILDREN)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from immure.host import tree


@pytest.fixture(params=["listed", "not listed"])
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A process that has two children, one of which has one too."""
    if request.param == "not listed":
        monkeypatch.setattr(tree, "_LISTED", "/no/such/file")
        monkeypatch.setattr(tree, "_listed", lambda _: pytest.fail("a file that is not there was read"))
    elif not os.path.exists(tree._LISTED):  # noqa: PTH110
        pytest.skip("host: a kernel with CONFIG_PROC_CHILDREN")
    script = "sleep 60 & (sleep 61 & echo ready; wait) & wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as shell:
        assert shell.stdout is not None
        shell.stdout.readline()
        yield shell.pid
        os.killpg(shell.pid, signal.SIGKILL)


def test_all_that_descend_are_found(family: int) -> None:
    found = tree.below(family)
    assert len(found) == len({*found}) == 3
    assert family not in found
    assert {*tree.below(os.getpid())} >= {family, *found}


def test_what_runs_is_counted(family: int) -> None:
    assert tree.moving(family) == 3
    (first, *others) = tree.below(family)
    os.kill(first, signal.SIGSTOP)
    end = time.monotonic() + 5
    while tree.moving(family) > len(others) and time.monotonic() < end:
        time.sleep(0.01)
    assert tree.moving(family) == 2


def test_one_that_is_gone_has_none() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    assert tree.below(gone.pid) == []
