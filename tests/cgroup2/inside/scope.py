"""What plain users are told to do: `systemd-run --user --scope -p Delegate=yes`, by a systemd of the user's."""

from __future__ import annotations

from pathlib import Path

from immure import Sandbox, run
from immure.engine.prepare import host_facts
from integration.command_line import CommandLine, python

from .here import CGROUPS, cgroup_of, clauses, own_path, parents, values

OWN = "/user.slice/user-1001.slice/user@1001.service"


def test_the_control_it_is_systemd_that_has_made_this_scope() -> None:
    assert own_path().startswith(f"{OWN}/app.slice/run-")
    assert own_path().endswith(".scope")
    (manager,) = (CGROUPS / f"{OWN}/init.scope/cgroup.procs"[1:]).read_text().split()[:1]
    assert Path(f"/proc/{manager}/comm").read_text() == "systemd\n"


def test_boxes_go_beside_it() -> None:
    assert f"{OWN}/app.slice" in parents()
    assert "memory pids" in parents()[f"{OWN}/app.slice"]
    assert not any(one.switch_on for one in host_facts().cgroups), "its manager says what is passed on"


def test_limits(cli: CommandLine) -> None:
    with Sandbox(memory_mib=64, cpus=0.5, pids=20) as box:
        assert values(cgroup_of(box), "memory.max", "cpu.max", "pids.max") == {
            "memory.max": str(64 << 20),
            "cpu.max": "50000 100000",
            "pids.max": "21",
        }
    hog = python("x = bytearray(200 << 20)")
    ended = run(hog, memory_mib=64)
    assert ended.exit.kind == "oom"
    assert {got for got, _ in clauses(ended).values()} == {"exact"}
    assert cli.run("--memory", "64", "--", *hog).returncode == 137
