"""The versions of runsc that tests run. tools/install_gvisor.sh puts them there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = (Path("/usr/local/lib/immure-test"), Path("~/.cache/immure-test").expanduser())
#: Built with Go from the newest source, and Debian 13's package of 2024.
VERSIONS = ("newest", "debian")


def installed_runsc(version: str) -> Path | None:
    paths = (place / version / "runsc" for place in PLACES)
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def runsc_of(version: str) -> Path:
    path = installed_runsc(version)
    if path is None:
        pytest.skip(f"runsc ({version}) is not installed: tools/install_gvisor.sh")
    return path


@contextmanager
def using(path: Path | str) -> Iterator[None]:
    """Boxes of this process are made with that runsc."""
    before = os.environ.get("IMMURE_RUNSC")
    os.environ["IMMURE_RUNSC"] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["IMMURE_RUNSC"]
        else:
            os.environ["IMMURE_RUNSC"] = before
