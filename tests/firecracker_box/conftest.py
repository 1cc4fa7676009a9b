"""A Firecracker, a kernel and an image: the first box boots for all of a session, and the others go on from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immure import Sandbox
from machine.machines import make_image, needs
from vmm_programs import binaries, guest_kernel


@pytest.fixture(scope="session")
def program() -> Path:
    return binaries() / "firecracker"


@pytest.fixture(scope="session")
def kernel() -> Path:
    needs()
    return guest_kernel()


@pytest.fixture(scope="package")
def settings(program: Path, kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What names the two, and a cache of these tests' own."""
    wanted = {
        "IMMURE_FIRECRACKER": str(program),
        "IMMURE_KERNEL": str(kernel),
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def image(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image") / "root")


@pytest.fixture
def spec(settings: None, image: Path) -> dict[str, Any]:
    return {"runtime": "firecracker", "level": "L3", "image": str(image), "workdir": "/", "memory_mib": 128}


@pytest.fixture(scope="package")
def shared(settings: None, image: Path) -> Iterator[Sandbox]:
    """A box for what leaves nothing behind."""
    with Sandbox(runtime="firecracker", level="L3", image=str(image), workdir="/", memory_mib=128) as box:
        yield box
