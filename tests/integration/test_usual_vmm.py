"""Who runs a machine for which nobody has named a runtime: what this host has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immure.engine import machines
from immure.engine.doctor import diagnose
from immure.engine.prepare import plan_of
from immure.host.facts import KvmFacts
from immure.host.machines import FIRECRACKER_SETTING, KERNEL_SETTING, QEMU_SETTING
from immure.spec.keywords import spec_from_keywords
from machine.machines import make_image

pytestmark = pytest.mark.root


def program(path: Path, says: str) -> str:
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def firecracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is here, with a kernel that it could boot."""
    monkeypatch.setenv(FIRECRACKER_SETTING, program(tmp_path / "firecracker", "Firecracker v1.12.1"))
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(b"\x7fELF")
    monkeypatch.setenv(KERNEL_SETTING, str(kernel))


@pytest.fixture
def no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QEMU_SETTING, "/none/such")


def needs() -> str:
    return " ".join(one.need for one in diagnose().levels["L4"].missing)


def test_it_is_qemu_where_both_are_here(firecracker: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QEMU_SETTING, program(tmp_path / "qemu", "QEMU emulator version 7.2.0"))
    assert machines.usual_vmm() == "qemu"


def test_it_is_qemu_where_none_is(no_qemu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the doctor then says what to do."""
    monkeypatch.setenv(FIRECRACKER_SETTING, "/none/such")
    assert machines.usual_vmm() == "qemu"
    assert "QEMU" in needs()


def test_it_is_firecracker_where_that_alone_is(firecracker: None, no_qemu: None) -> None:
    assert machines.usual_vmm() == "firecracker"
    assert "QEMU" not in needs()
    assert "Firecracker" not in needs()


@pytest.mark.parametrize("vmm", ["qemu", "firecracker"])
def test_a_spec_of_level_l4_gets_it(vmm: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by a plan, as no machine of this level need be possible here."""
    request.getfixturevalue("firecracker")
    if vmm == "firecracker":
        request.getfixturevalue("no_qemu")
    by_hardware = KvmFacts(kind="hardware", turn_ns=1)
    monkeypatch.setattr("immure.engine.prepare.kvm_facts", lambda: by_hardware)
    monkeypatch.setattr(machines, "kvm_facts", lambda: by_hardware)
    image = make_image(request.getfixturevalue("tmp_path") / "image")
    plan = plan_of(spec_from_keywords({"level": "L4", "image": str(image)}), base=Path(os.sep))
    assert plan.runtime == vmm


def test_firecracker_boots_no_kernel_of_modules(
    firecracker: None, no_qemu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "modules_of", lambda _: ("virtio_blk.ko",))
    assert "drivers built in" in needs()
    monkeypatch.setattr(machines, "modules_of", lambda _: ())
    assert "drivers built in" not in needs()


def test_a_kernel_that_can_t_be_read_is_told_of(
    firecracker: None, no_qemu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: str) -> tuple[str, ...]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(machines, "modules_of", unreadable)
    assert "kernel for guests" in needs()
