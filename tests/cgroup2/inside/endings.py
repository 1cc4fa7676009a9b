"""However a box's makers end, no cgroup of it stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from immure import BoxLost, Sandbox, run
from immure.engine.spawners import close_all
from integration.processes import descendants, eventually, running, spawner_pids

from .here import CGROUPS, cgroup_of

#: Says which boxes it has, and waits to be killed.
CALLER = """
import time
from immure import Sandbox
boxes = [Sandbox(memory_mib=64), Sandbox(level="L1", namespaces="none", pids=20)]
for box in boxes:
    box.exec(["sh", "-c", "setsid sleep 300 & exit 0"])
print("ready", flush=True)
time.sleep(300)
"""


def cgroups_of(spawners: set[int]) -> list[Path]:
    """`os.walk` does not mind what goes meanwhile."""
    found = [Path(folder) for folder, _, _ in os.walk(CGROUPS)]
    return [path for path in found if path.name.startswith(tuple(f"immure-{pid}-" for pid in spawners))]


def test_after_a_box_s_end() -> None:
    with Sandbox(memory_mib=64) as box:
        folder = cgroup_of(box)
        assert folder.name.startswith("immure-")
    assert not folder.exists()


def test_when_the_caller_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"ready\n"
        below = descendants(caller.pid)
        spawners = {one.pid for one in below if one.name == "immure-spawner"}
        assert len(cgroups_of(spawners)) == 2, "the control"
        caller.kill()
    assert eventually(lambda: not cgroups_of(spawners))
    assert eventually(lambda: not any(running(one.pid) for one in below))


def test_when_the_spawner_is_killed() -> None:
    run(["true"], memory_mib=64)
    with Sandbox(memory_mib=64) as box:
        folder, spawners = cgroup_of(box), spawner_pids()
        for pid in spawners:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(BoxLost):
            box.exec(["true"])
    assert eventually(lambda: not folder.exists()), "closing it has removed what the spawner could not"


def test_when_both_are_killed_at_once() -> None:
    """Then nobody is left to remove it, and the next spawner there does."""
    with subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        caller.stdout.readline()
        below = descendants(caller.pid)
        spawners = {one.pid for one in below if one.name == "immure-spawner"}
        for pid in (caller.pid, *spawners):
            os.kill(pid, signal.SIGSTOP)
        for pid in (caller.pid, *spawners):
            os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not any(running(one.pid) for one in below)), "the boxes end all the same"
    assert cgroups_of(spawners), "the control"
    close_all()
    assert run(["true"], memory_mib=64).ok
    assert eventually(lambda: not cgroups_of(spawners))
