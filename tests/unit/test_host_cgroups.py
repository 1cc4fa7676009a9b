"""Which cgroups boxes' own can be made in: v1, v2 and hybrids, as a user may write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from immure.host import cgroups

Tree = Callable[[str, dict[str, str]], list[tuple[tuple[str, ...], str, int]]]
Find = Callable[[str, dict[str, str]], cgroups.Found]
V2_ROOT = {"cgroup.controllers": "cpu io memory pids", "cgroup.subtree_control": "cpu memory pids", "cgroup.procs": ""}


@pytest.fixture
def find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Find:
    """What is found where /proc/self/cgroup says this and /sys/fs/cgroup holds these files. A file `delegated` is
    systemd's mark.
    """

    def found(membership: str, files: dict[str, str]) -> cgroups.Found:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        monkeypatch.setattr(cgroups, "_MOUNT", tmp_path)
        monkeypatch.setattr(cgroups, "_SWAPS", tmp_path / "swaps")
        monkeypatch.setattr(cgroups, "membership", lambda: membership)
        # Root may write anywhere, so what may be written is said by a file's being there.
        monkeypatch.setattr(cgroups.os, "access", lambda path, mode: Path(path).exists())
        monkeypatch.setattr(cgroups.os, "getxattr", lambda path, name: (Path(path) / "delegated").read_bytes())
        return cgroups.find_parents()

    return found


@pytest.fixture
def tree(tmp_path: Path, find: Find) -> Tree:
    """The parents alone: controllers, path and version."""
    return lambda membership, files: [
        (one.controllers, str(Path(one.path).relative_to(tmp_path)), one.version)
        for one in find(membership, files).parents
    ]


def leaf(path: str, procs: str = "1\n") -> dict[str, str]:
    """A cgroup that passes nothing on, as those are that processes stand in."""
    return {f"{path}/cgroup.controllers": "", f"{path}/cgroup.subtree_control": "", f"{path}/cgroup.procs": procs}


def inner(path: str, passed: str) -> dict[str, str]:
    return {**leaf(path, ""), f"{path}/cgroup.controllers": passed, f"{path}/cgroup.subtree_control": passed}


def test_v2_takes_those_above_that_pass_controllers_on_the_nearest_first(tree: Tree) -> None:
    files = {**V2_ROOT, **inner("user", "memory pids"), **leaf("user/shell")}
    assert tree("0::/user/shell\n", files) == [
        (("memory", "pids"), "user", 2),
        (("memory", "pids", "cpu"), ".", 2),
    ]


def test_v2_goes_up_to_the_root(tree: Tree) -> None:
    files = {"cgroup.controllers": "", "cgroup.subtree_control": "pids", "cgroup.procs": "", "a/cgroup.procs": ""}
    assert tree("0::/a\n", files) == [(("pids",), ".", 2)]


@pytest.mark.parametrize("control", ["", "io cpuset"])
def test_v2_that_passes_nothing_on(control: str, find: Find, tmp_path: Path) -> None:
    files = {"cgroup.controllers": "memory", "cgroup.subtree_control": control, "cgroup.procs": ""}
    assert find("0::/\n", files) == ((), f"{tmp_path} passes no controller on (cgroup.subtree_control)")


def test_v2_that_can_not_be_written(find: Find, tmp_path: Path) -> None:
    files = {"cgroup.controllers": "memory", "cgroup.subtree_control": "memory"}
    assert find("0::/\n", files) == ((), f"{tmp_path} can't be written by this user")


def test_v2_that_is_mounted_read_only(find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = cgroups.os.statvfs(tmp_path)
    sealed = SimpleNamespace(f_flag=told.f_flag | cgroups.os.ST_RDONLY)
    monkeypatch.setattr(cgroups.os, "statvfs", lambda _: sealed)
    assert find("0::/\n", V2_ROOT) == ((), f"{tmp_path} is mounted read-only")


def test_v2_that_processes_stand_in(find: Find, tmp_path: Path) -> None:
    files = {**leaf("own"), "own/cgroup.controllers": "memory pids", "cgroup.controllers": "memory"}
    assert find("0::/own\n", files) == ((), f"{tmp_path}/own can't pass controllers on, since processes stand in it")


def test_v2_without_our_controllers(find: Find, tmp_path: Path) -> None:
    assert find("0::/\n", {**leaf("."), "cgroup.controllers": "cpuset io"}).why_none == (
        f"{tmp_path} has no controller of memory, pids or cpu"
    )


def test_v2_of_another_cgroup_namespace(find: Find, tmp_path: Path) -> None:
    """What is mounted shows other cgroups than ours: nothing is to be made in those."""
    found = find("0::/../other/own\n", {**V2_ROOT, **inner("other", "memory")})
    assert found == ((), f"this process is in /../other/own, outside the cgroups at {tmp_path}")


def test_v2_that_is_not_mounted(find: Find, tmp_path: Path) -> None:
    assert find("0::/own\n", {}) == ((), f"no cgroup v2 at {tmp_path}")


def test_v2_that_shows_its_own_as_the_root(tree: Tree) -> None:
    """In a container of the host's cgroup namespace, to which a part is shown."""
    assert tree("0::/system.slice/docker-1.scope/leaf\n", V2_ROOT) == [(("memory", "pids", "cpu"), ".", 2)]


DELEGATED = {**leaf("one.service", ""), "one.service/cgroup.controllers": "cpu memory pids"}
MARKED = {**DELEGATED, "one.service/delegated": "1"}


def test_what_is_delegated_is_switched_on(find: Find) -> None:
    """systemd leaves it to whom it has delegated a unit what the cgroups in it have."""
    (one,) = find("0::/one.service/main\n", {"cgroup.controllers": "", **MARKED, **leaf("one.service/main")}).parents
    assert one.controllers == one.switch_on == ("memory", "pids", "cpu")


def test_what_is_passed_on_already_need_not_be_switched_on(find: Find) -> None:
    files = {"cgroup.controllers": "", **MARKED, "one.service/cgroup.subtree_control": "pids"}
    (one,) = find("0::/one.service/main\n", {**files, **leaf("one.service/main")}).parents
    assert (one.controllers, one.switch_on) == (("memory", "pids", "cpu"), ("memory", "cpu"))


@pytest.mark.parametrize(
    "but",
    [
        pytest.param({"one.service/delegated": "0"}, id="not marked"),
        pytest.param({"one.service/cgroup.procs": "7\n"}, id="processes stand in it"),
        pytest.param(leaf("one.service/init.scope"), id="another systemd manages it"),
    ],
)
def test_what_is_not_ours_is_not_switched_on(but: dict[str, str], find: Find) -> None:
    found = find("0::/one.service/main\n", {"cgroup.controllers": "", **MARKED, **leaf("one.service/main"), **but})
    assert found.parents == ()
    assert found.why_none


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "limited"),
        ({"own/memory.max": "max", "own/memory.swap.max": "max", "swaps": ""}, "limited"),
        ({"own/memory.max": "max", "swaps": ""}, "uncounted"),
        ({"own/memory.max": "max"}, "none"),
    ],
)
def test_what_becomes_of_swap(files: dict[str, str], expected: str, find: Find) -> None:
    (one,) = find("0::/own\n", {**V2_ROOT, **leaf("own"), **files}).parents
    assert one.swap == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory/a/memory.memsw.limit_in_bytes": "0", "swaps": ""}, "limited"),
        ({"swaps": ""}, "uncounted"),
        ({}, "none"),
    ],
)
def test_what_becomes_of_swap_on_v1(files: dict[str, str], expected: str, find: Find) -> None:
    (one,) = find("4:memory:/a\n", {"memory/a/cgroup.procs": "", **files}).parents
    assert one.swap == expected


def test_v1_alone_says_nothing_of_v2(find: Find) -> None:
    assert find("4:memory:/a\n", {"memory/a/cgroup.procs": ""}).why_none == ""


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
        "unified/cgroup.controllers": "pids",
        "unified/cgroup.subtree_control": "pids",
        "unified/cgroup.procs": "",
    }
    assert tree("4:memory:/\n0::/\n", files) == [(("memory",), "memory", 1), (("pids",), "unified", 2)]


def test_a_path_with_colons(tree: Tree) -> None:
    assert tree("4:memory:/a:b\n", {"memory/a:b/cgroup.procs": ""}) == [(("memory",), "memory/a:b", 1)]


def test_no_cgroups_at_all(tree: Tree) -> None:
    assert tree("", {}) == []
