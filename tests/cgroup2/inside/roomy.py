"""In a container that may write its cgroups, and whose first program has moved itself aside."""

from __future__ import annotations

from immure import Sandbox, run
from integration.command_line import python

from .here import CGROUPS, cgroup_of, own_path, parents, values


def test_what_is_found() -> None:
    assert own_path() == "/own"
    assert parents() == {"": "memory pids"}


def test_limits() -> None:
    with Sandbox(memory_mib=64) as box:
        assert cgroup_of(box).parent == CGROUPS
        assert values(cgroup_of(box), "memory.max") == {"memory.max": str(64 << 20)}
    assert run(python("x = bytearray(200 << 20)"), memory_mib=64).exit.kind == "oom"
