"""The guest, booted once: all that is shown in it comes of that run."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.machines import needs
from vmm_programs import guest_kernel

from .machine import Guest, run_guest
from .root import build_root, pack


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Guest:
    needs("qemu-system-x86_64")
    kernel = guest_kernel()
    folder: Path = tmp_path_factory.mktemp("cgroup2")
    root, image = folder / "root", folder / "root.erofs"
    root.mkdir()
    build_root(root, kernel)
    pack(root, image)
    return run_guest(kernel, image, folder)
