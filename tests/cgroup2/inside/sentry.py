"""A box with a kernel of its own in user space: what it takes of this host is in the cgroup of its outer box."""

from __future__ import annotations

from immure import Sandbox
from integration.command_line import python
from runscs import runsc_of, using

from .here import cgroup_of, clauses, count, values

MIB = 1 << 20


def test_what_it_takes_of_the_host_is_bounded() -> None:
    limits = {"memory_mib": 256, "pids": 50, "cpus": 1}
    with using(runsc_of("newest")), Sandbox(runtime="gvisor", level="L3", limits=limits) as box:
        folder = cgroup_of(box)
        # Of its processes each is some of this host's.
        assert values(folder, "memory.max", "memory.swap.max", "pids.max", "cpu.max") == {
            "memory.max": str(256 * MIB),
            "memory.swap.max": "0",
            "pids.max": "456",
            "cpu.max": "100000 100000",
        }
        done = box.exec(["true"])
        assert clauses(done)["memory"] == clauses(done)["cpus"] == ("exact", "")
        assert len((folder / "cgroup.procs").read_text().split()) > 3, "the control: the Sentry is in there"
        assert box.exec(python("x = bytearray(600 << 20)"), timeout_s=100).exit.kind == "oom"
        assert count(folder, "memory.events", "oom_kill") >= 1
    assert not folder.exists()
