"""A guest that says what a test wants, after which nothing is left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fakes import FakeGuest, nothing_left


@pytest.fixture
def nothing_stays() -> Iterator[None]:
    with nothing_left():
        yield


@pytest.fixture
def guest(nothing_stays: None) -> Iterator[FakeGuest]:
    made = FakeGuest()
    yield made
    made.close()
    assert made.ended.is_set(), "what the box is in was not ended"
