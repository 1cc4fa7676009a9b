"""Boxes in a Sentry, of each version of runsc that tests have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runscs import VERSIONS, runsc_of, using


@pytest.fixture(params=VERSIONS)
def runsc(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The program that boxes of this test are made with."""
    path = runsc_of(request.param)
    with using(path):
        yield path


@pytest.fixture
def newest() -> Iterator[Path]:
    path = runsc_of("newest")
    with using(path):
        yield path
