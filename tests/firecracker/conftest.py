"""Firecracker's programs, and guests to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from vmm_programs import binaries

from . import guests
from .vmms import Vmm


@pytest.fixture(scope="session")
def place() -> Path:
    return binaries()


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kernels `ends`, `rests` and `counts`."""
    folder = tmp_path_factory.mktemp("kernels")
    for make in (guests.ends, guests.rests, guests.counts):
        make(folder)
    return folder


@pytest.fixture
def vmm(place: Path, tmp_path: Path) -> Iterator[Callable[..., Vmm]]:
    """Makes processes of Firecracker that end with the test."""
    with ExitStack() as stack:

        def made(name: str = "vmm", *arguments: str) -> Vmm:
            return stack.enter_context(Vmm(place, tmp_path / name, *arguments))

        yield made
