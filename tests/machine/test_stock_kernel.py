"""Machines with a distribution's kernel, whose drivers are modules."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from immure import ProtectionUnavailable, Sandbox, run

pytestmark = pytest.mark.rootless


@pytest.fixture(scope="module")
def stock() -> Path:
    tool = Path(__file__).parents[2] / "tools/install_debian_kernel.sh"
    place = subprocess.run([tool, "--place"], capture_output=True, text=True, check=True).stdout.strip()
    found = list(Path(place, "boot").glob("vmlinuz-*"))
    if not found:
        pytest.skip("no kernel of Debian's: tools/install_debian_kernel.sh")
    return found[0]


@pytest.fixture
def spec(stock: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("IMMURE_KERNEL", str(stock))
    return {"runtime": "qemu", "level": "L3", "image": str(image), "workdir": "/"}


def test_it_boots_and_every_part_holds(spec: dict[str, Any]) -> None:
    with Sandbox(**spec) as box:
        assert "Debian" in box.exec(["/bin/cat", "/proc/version"]).stdout.text()
        assert all(one.held for one in box.evidence().parts), box.evidence().parts
        assert abs(time.time() - float(box.exec(["/bin/date", "+%s"]).stdout)) < 5
        content = os.urandom(1 << 20)
        assert box.exec(["/bin/cat"], stdin=content, output_mib=4).stdout == content


def test_mounts_and_what_is_brought_back(spec: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "read").mkdir()
    (tmp_path / "read/file").write_text("read\n")
    (tmp_path / "write").mkdir()
    mounts = [(tmp_path / "read", "/read", "ro"), (tmp_path / "write", "/write", "rw")]
    assert run(["/bin/busybox", "cp", "/read/file", "/write/copied"], **spec, mounts=mounts).ok
    assert (tmp_path / "write/copied").read_text() == "read\n"


def test_nothing_of_it_is_written_to(spec: dict[str, Any]) -> None:
    with Sandbox(**spec) as box:
        script = "exec 2>&1; for one in / /bin /proc/acpi /.immure/empty /dev; do touch $one/x; done; touch /tmp/x"
        said = box.exec(["/bin/busybox", "sh", "-c", script], user=0).stdout.text()
    assert said.count("Read-only file system") == 5, said
    assert "/tmp/x" not in said, "the control"


def test_no_module_can_be_loaded_or_taken_away(spec: dict[str, Any]) -> None:
    with Sandbox(**spec) as box:
        for user in (0, 1000):
            said = box.exec(["/bin/busybox", "rmmod", "virtio_rng"], user=user)
            assert "Operation not permitted" in said.stderr.text()
        assert b"virtio_rng" in bytes(box.exec(["/bin/cat", "/proc/modules"]).stdout), "the control"


def test_landlock_of_a_kernel_that_has_too_little(spec: dict[str, Any]) -> None:
    """Linux 6.1 has ABI 2, which can't keep files from being cut short."""
    with pytest.raises(ProtectionUnavailable) as caught:
        run(["/bin/true"], protections={"landlock": "required"}, **spec)
    assert "ABI 2" in (caught.value.have or "")
    assert os.environ["IMMURE_KERNEL"] in (caught.value.have or "")


def test_a_disk_of_its_own(spec: dict[str, Any]) -> None:
    """Devices are found after its first process has begun."""
    with Sandbox(**spec, disk_mib=300, memory_mib=256, protections={"memory": "best_effort"}) as box:
        assert " /tmp ext4 rw,nosuid,nodev," in box.exec(["/bin/cat", "/proc/mounts"]).stdout.text()
        content = os.urandom(1 << 20)
        box.files.write("/tmp/kept", content)
        assert box.exec(["/bin/busybox", "sync"]).ok
        assert box.files.read("/tmp/kept") == content
