"""How many boxes a host takes: what is there is counted, none is made that memory is short for, and all end."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from bench import density

pytestmark = pytest.mark.root

ROOT = Path(__file__).parent.parent.parent


def test_as_many_as_were_asked_for_answer() -> None:
    command = [sys.executable, "-m", "bench.density", "process", "5"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(ended.stdout)
    assert (found["boxes"], found["answered"], found["stopped_by"]) == (5, 5, "the number asked for")
    assert found["made_per_s"] > 0
    assert 0 < found["pss_mib_each"] < 10
    assert found["memory_would_take"] > 5


def test_none_is_made_that_would_take_the_hosts_reserve() -> None:
    with ExitStack() as stack:
        assert density.make({"level": "L2"}, 3, density.memory_mib("MemTotal") + 1, stack) == []
        assert len(density.make({"level": "L2"}, 3, 0, stack)) == 3, "the control"
