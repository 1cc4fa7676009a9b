"""What tests boot virtual machines with: tools/install_test_packages.sh puts it there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"


@cache
def _place(tool: str) -> Path:
    said = subprocess.run([TOOLS / tool, "--place"], capture_output=True, text=True, check=True).stdout
    return Path(said.strip())


def guest_kernel() -> Path:
    """The kernel that tools/build_guest_kernel.sh builds."""
    kernel = _place("build_guest_kernel.sh") / "vmlinux"
    if not kernel.exists():
        pytest.skip("no guest kernel: tools/build_guest_kernel.sh")
    return kernel


def binaries() -> Path:
    """Where Firecracker and its jailer are."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("host: no /dev/kvm that this user may open")
    place = _place("install_firecracker.sh")
    if not (place / "firecracker").exists() or not (place / "jailer").exists():
        pytest.skip("no Firecracker: tools/install_firecracker.sh")
    return place


@contextmanager
def named_vmm(runtime: str) -> Iterator[None]:
    """Machines of this process boot that kernel, and Firecracker is that one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMMURE_KERNEL", str(guest_kernel()))
        if runtime == "firecracker":
            patch.setenv("IMMURE_FIRECRACKER", str(binaries() / "firecracker"))
        yield
