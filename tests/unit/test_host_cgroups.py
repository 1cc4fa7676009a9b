"""Which cgroups boxes' own can be made in: v1, v2 and hybrids, as a user may write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from immure.host import cgroups

Tree = Callable[[str, dict[str, str]], list[tuple[tuple[str, ...], str, int]]]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """The parents found where /proc/self/cgroup says this and /sys/fs/cgroup holds these files."""

    def found(membership: str, files: dict[str, str]) -> list[tuple[tuple[str, ...], str, int]]:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(cgroups, "_MOUNT", tmp_path)
        monkeypatch.setattr(cgroups, "membership", lambda: membership)
        # Root may write anywhere, so what may be written is said by a file's being there.
        monkeypatch.setattr(cgroups.os, "access", lambda path, mode: Path(path).exists())
        return [
            (one.controllers, str(Path(one.path).relative_to(tmp_path)), one.version) for one in cgroups.find_parents()
        ]

    return found


def test_v2_takes_the_nearest_that_passes_controllers_on(tree: Tree) -> None:
    files = {
        "cgroup.controllers": "cpu memory pids",
        "cgroup.subtree_control": "cpu memory pids",
        "cgroup.procs": "",
        "user/cgroup.subtree_control": "memory pids",
        "user/cgroup.procs": "",
        "user/shell/cgroup.subtree_control": "",
        "user/shell/cgroup.procs": "",
    }
    assert tree("0::/user/shell\n", files) == [(("memory", "pids"), "user", 2)]


def test_v2_goes_up_to_the_root(tree: Tree) -> None:
    files = {"cgroup.controllers": "", "cgroup.subtree_control": "pids", "cgroup.procs": "", "a/cgroup.procs": ""}
    assert tree("0::/a\n", files) == [(("pids",), ".", 2)]


@pytest.mark.parametrize("control", ["", "io cpuset"])
def test_v2_that_passes_nothing_on(control: str, tree: Tree) -> None:
    assert tree("0::/\n", {"cgroup.controllers": "memory", "cgroup.subtree_control": control, "cgroup.procs": ""}) == []


def test_v2_that_can_not_be_written(tree: Tree) -> None:
    assert tree("0::/\n", {"cgroup.controllers": "memory", "cgroup.subtree_control": "memory"}) == []


def test_v1_has_one_for_each_hierarchy(tree: Tree) -> None:
    files = {
        "memory/a/cgroup.procs": "",
        "pids/a/cgroup.procs": "",
        "cpu,cpuacct/a/cgroup.procs": "",
        "freezer/a/cgroup.procs": "",
    }
    membership = "4:memory:/a\n3:pids:/a\n2:cpu,cpuacct:/a\n1:freezer:/a\n5:name=systemd:/a\n"
    assert tree(membership, files) == [
        (("memory",), "memory/a", 1),
        (("pids",), "pids/a", 1),
        (("cpu",), "cpu,cpuacct/a", 1),
    ]


def test_v1_in_a_container_shows_its_own_as_the_root(tree: Tree) -> None:
    assert tree("4:memory:/docker/abc\n", {"memory/cgroup.procs": ""}) == [(("memory",), "memory", 1)]


def test_v1_that_can_not_be_written(tree: Tree) -> None:
    assert tree("4:memory:/a\n", {"memory/a/tasks": ""}) == []


def test_a_hybrid_is_both(tree: Tree) -> None:
    files = {
        "memory/cgroup.procs": "",
        "unified/cgroup.subtree_control": "pids",
        "unified/cgroup.procs": "",
    }
    assert tree("4:memory:/\n0::/\n", files) == [(("memory",), "memory", 1), (("pids",), "unified", 2)]


def test_a_path_with_colons(tree: Tree) -> None:
    assert tree("4:memory:/a:b\n", {"memory/a:b/cgroup.procs": ""}) == [(("memory",), "memory/a:b", 1)]


def test_no_cgroups_at_all(tree: Tree) -> None:
    assert tree("", {}) == []
