"""A user in a scope of their own systemd: `systemd-run --user --scope -p Delegate=yes`."""

from __future__ import annotations

from immure import Sandbox, run
from immure.engine.prepare import host_facts
from integration.command_line import CommandLine, python, shell

from .here import CGROUPS, cgroup_of, clauses, count, own_path, parents, values

MIB = 1 << 20
OWN = "/user.slice/user-1000.slice/user@1000.service"
HOG = python("x = bytearray(200 << 20)")


def test_what_is_found() -> None:
    assert own_path() == f"{OWN}/app.slice/run-1.scope"
    assert parents() == {f"{OWN}/app.slice": "memory pids", OWN: "cpu memory pids"}


def test_the_user_has_no_other_ids() -> None:
    assert host_facts().ids.kind == "single"


def test_memory(cli: CommandLine) -> None:
    ended = run(HOG, memory_mib=64)
    assert ended.exit.kind == "oom"
    assert ended.usage.memory_peak_bytes <= 64 * MIB
    assert clauses(ended)["memory"] == ("exact", "")
    assert cli.run("--memory", "64", "--", *HOG).returncode == 137
    assert run(HOG, memory_mib=512).ok


def test_defaults_hold_too() -> None:
    with Sandbox() as box:
        assert cgroup_of(box).parent == CGROUPS / f"{OWN}/app.slice"[1:]
        assert values(cgroup_of(box), "memory.max", "pids.max") == {"memory.max": str(1024 * MIB), "pids.max": "513"}
        assert box.evidence().host.cgroup == f"0::{OWN}/app.slice/{cgroup_of(box).name}"


def test_processors_are_had_further_up() -> None:
    with Sandbox(cpus=0.2) as box:
        assert cgroup_of(box).parent == CGROUPS / OWN[1:]
        assert values(cgroup_of(box), "cpu.max") == {"cpu.max": "20000 100000"}
        box.exec(python("while True: pass"), timeout_s=1.5)
        assert count(cgroup_of(box), "cpu.stat", "nr_throttled") > 3


def test_processes() -> None:
    with Sandbox(pids=16) as box:
        assert values(cgroup_of(box), "pids.max") == {"pids.max": "17"}
        assert not box.exec(shell("for i in $(seq 40); do sleep 3 & done; echo all"), timeout_s=5).stdout
        assert int((cgroup_of(box) / "pids.peak").read_text()) <= 17


def test_a_box_sees_no_path_of_the_host_s() -> None:
    assert run(["cat", "/proc/self/cgroup"]).stdout == b"0::/\n"
