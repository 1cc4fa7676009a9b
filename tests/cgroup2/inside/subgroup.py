"""A service with `Delegate=memory pids` and `DelegateSubgroup=main`: its processes stand aside from the beginning.

systemd leaves it to the service to pass on what it was given.
"""

from __future__ import annotations

import pytest

from immure import ProtectionUnavailable, Sandbox, run
from immure.engine.prepare import host_facts
from integration.command_line import python

from .here import CGROUPS, cgroup_of, own_path, parents, values

SERVICE = CGROUPS / "system.slice/split.service"


def test_what_it_was_given_is_passed_on_when_a_box_is_made() -> None:
    assert own_path() == "/system.slice/split.service/main"
    assert parents() == {"/system.slice/split.service": "memory pids"}
    assert [one.switch_on for one in host_facts().cgroups] == [("memory", "pids")]
    assert host_facts().ids.kind == "ranges"
    assert not (SERVICE / "cgroup.subtree_control").read_text().split(), "the control: not yet"
    with Sandbox() as box:
        assert (SERVICE / "cgroup.subtree_control").read_text().split() == ["memory", "pids"]
        assert cgroup_of(box).parent == SERVICE
        assert values(cgroup_of(box), "memory.max", "pids.max") == {"memory.max": str(1 << 30), "pids.max": "513"}


def test_memory() -> None:
    assert run(python("x = bytearray(200 << 20)"), memory_mib=64).exit.kind == "oom"


def test_what_it_was_not_given_is_refused() -> None:
    with pytest.raises(ProtectionUnavailable, match="the cpu controller"):
        run(["true"], cpus=1)
