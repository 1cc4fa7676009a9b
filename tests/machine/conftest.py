"""A kernel and an image for machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmm_programs import guest_kernel

from .machines import make_image, needs_qemu


@pytest.fixture(scope="session")
def kernel() -> Path:
    needs_qemu()
    return guest_kernel()


@pytest.fixture(scope="session")
def image(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image") / "root")
