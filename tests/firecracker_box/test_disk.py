"""Machines of Firecracker's that write to a disk of their own."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from immure import Sandbox
from immure.runtimes.firecracker.box import FirecrackerBox
from machine.test_disk import ends, found_on, holders, named, open_in, said

pytestmark = pytest.mark.timeout(400)

MIB = 1 << 20
DISK_MIB = 300


@pytest.fixture
def disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own."""
    (tmp_path / "disks").mkdir()
    monkeypatch.setenv("IMMURE_DISKS", str(tmp_path / "disks"))
    return tmp_path / "disks"


def disk_of(box: Sandbox) -> int:
    assert isinstance(box._box, FirecrackerBox)
    disk = box._box._monitor._disk
    assert disk is not None
    return disk


def test_each_has_its_own_though_all_go_on_from_one_memory(spec: dict[str, Any], disks: Path) -> None:
    secret = os.urandom(16).hex().encode()
    with Sandbox(**spec, disk_mib=DISK_MIB) as first:
        assert "that had booted" in next(one.by for one in first.exec(["/bin/true"]).report if one.clause == "runtime")
        (kib,) = re.findall(r" (\d+) +\d+% /tmp$", said(first, "df -k /tmp"))
        assert DISK_MIB << 10 <= int(kib) <= (DISK_MIB + 2) << 10
        first.files.write("/tmp/secret", secret)
        assert said(first, "sync; cat /tmp/secret").encode() == secret
        with Sandbox(**spec, disk_mib=DISK_MIB) as second:
            assert second.exec(["/bin/ls", "/tmp"]).stdout == b""
            second.files.write("/tmp/other", b"other")
            said(second, "sync")
            assert found_on(disk_of(first), secret), "the control"
            assert not found_on(disk_of(second), secret)
            assert os.fstat(disk_of(first)).st_ino != os.fstat(disk_of(second)).st_ino
            assert first.exec(["/bin/ls", "/tmp"]).stdout == b"secret\n"
        assert os.getpid() in holders(disks)
        assert named(disks) == [], "it has no name"
    ends(disks)


def test_what_is_on_it_goes_along_with_a_copy(spec: dict[str, Any], disks: Path) -> None:
    with Sandbox(**spec, disk_mib=DISK_MIB) as box:
        box.files.write("/tmp/kept", b"content")
        assert said(box, "sync; dd if=/dev/zero of=/tmp/large bs=64k count=16; echo not on it yet > /tmp/new") != ""
        with box.snapshot() as taken:
            said(box, "rm /tmp/kept /tmp/large; echo changed > /tmp/new; sync")
            for _ in range(2):
                with Sandbox.restore(taken) as copy:
                    assert copy.files.read("/tmp/kept") == b"content"
                    assert copy.files.read("/tmp/new") == b"not on it yet\n"
                    assert copy.files.stat("/tmp/large").size_bytes == MIB
                    said(copy, "rm /tmp/kept; sync")
        assert box.files.read("/tmp/new") == b"changed\n"
        assert box.exec(["/bin/ls", "/tmp"]).stdout == b"new\n"
    ends(disks)


def test_without_disk_mib_there_is_none(spec: dict[str, Any], disks: Path, shared: Sandbox) -> None:
    assert said(shared, "cat /proc/partitions | grep -o 'vd.'") == "vda"
    assert isinstance(shared._box, FirecrackerBox)
    assert shared._box._monitor._disk is None
    assert not [name for name in open_in(Path("/proc/self")) if "/disks/" in name]
