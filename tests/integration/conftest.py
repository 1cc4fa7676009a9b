"""What every integration test gets: the command line, and the check that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .command_line import CommandLine
from .processes import adopt_orphans, eventually, left_behind, open_descriptors

#: A test that waits longer than this for something hangs.
PATIENCE_S = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here not in item.path.parents:
            continue
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PATIENCE_S))
        if item.get_closest_marker("root") and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs uid 0"))


@pytest.fixture(scope="session", autouse=True)
def orphans_are_ours() -> None:
    adopt_orphans()


@pytest.fixture(scope="session")
def shared_cli(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def cli(shared_cli: CommandLine) -> CommandLine:
    """The command line, with a cache that the tests share."""
    return shared_cli


@pytest.fixture
def fresh_cli(tmp_path: os.PathLike[str], tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """The command line, with an empty cache."""
    return CommandLine(tmp_path_factory.mktemp("fresh"))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """After each test no process of a box is there any more, and no more descriptors of boxes are open than before."""
    before = box_descriptors()
    yield
    assert eventually(lambda: not left_behind()), f"left behind: {left_behind()}"
    assert eventually(lambda: not box_descriptors() - before, within=1.0), box_descriptors() - before


def box_descriptors() -> set[tuple[int, str]]:
    """Pidfds and memory files, which only boxes under way have here."""
    links = open_descriptors(os.getpid())
    return {(fd, link) for fd, link in links.items() if "pidfd" in link or "memfd:immure" in link}
