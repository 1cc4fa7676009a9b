"""A box in a virtual machine: its VMM, with the guest's memory, is in the cgroup of its outer box."""

from __future__ import annotations

from pathlib import Path

import pytest

from cgroup2.root import KERNEL
from immure import Sandbox
from machine.machines import make_image

from .here import cgroup_of, clauses, count, values

MIB = 1 << 20


def test_what_it_takes_of_the_host_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_KERNEL", KERNEL)
    image = make_image(tmp_path / "root")
    limits = {"memory_mib": 128, "pids": 50, "cpus": 1}
    with Sandbox(runtime="qemu", level="L3", image=str(image), workdir="/", limits=limits) as box:
        folder = cgroup_of(box)
        assert values(folder, "memory.max", "memory.swap.max", "cpu.max") == {
            "memory.max": str((128 + 160) * MIB),
            "memory.swap.max": "0",
            "cpu.max": "100000 100000",
        }
        done = box.exec(["/bin/true"])
        assert done.ok
        assert clauses(done)["memory"] == clauses(done)["cpus"] == ("exact", "")
        processes = (folder / "cgroup.procs").read_text().split()
        assert "qemu-system-x86" in [Path(f"/proc/{pid}/comm").read_text().strip() for pid in processes], "the control"
        before = int((folder / "memory.current").read_text())
        assert box.exec(["/bin/sh", "-c", "dd if=/dev/zero of=/tmp/a bs=1M count=40 2>/dev/null"], timeout_s=100).ok
        assert int((folder / "memory.current").read_text()) > before + 30 * MIB, "what the guest takes is counted there"
        assert count(folder, "memory.events", "oom_kill") == 0
    assert not folder.exists()
