"""Where the user's mounts may stand, and what makes room for them."""

from __future__ import annotations

import pytest
from hosts import compiled, make_spec, mounts, of_kind
from hypothesis import given
from hypothesis import strategies as st

from immure.errors import SpecError
from immure.plan.model import Plan
from immure.plan.operations import (
    NODEV,
    NOSUID,
    RDONLY,
    Dir,
    File,
    MakeDir,
    MakeFile,
    MountNew,
    Private,
    Share,
    UserMount,
)


def folder(source: str, target: str, access: str = "ro") -> dict[str, object]:
    return {"source": source, "target": target, "access": access}


def plan_of(*entries: dict[str, object], files: tuple[str, ...] = (), **fields: object) -> Plan:
    return compiled(make_spec(files=mounts(*entries), **fields), files=files)


def made_in_image(plan: Plan, *paths: str) -> list[str]:
    """Those of the paths that the image gets a mount point for."""
    return [op.path for op in plan.template if isinstance(op, Dir | File) and op.path in paths]


REFUSED = [
    ("/", "not inside the box's root"),
    ("//", "not inside the box's root"),
    ("/.", "not inside the box's root"),
    ("/..", "not inside the box's root"),
    ("/a/..", "not inside the box's root"),
    ("/a/../../etc", "not inside the box's root"),
    ("/proc", "the box's own"),
    ("/proc/sys", "the box's own"),
    ("//proc/./1", "the box's own"),
    ("/dev", "the box's own"),
    ("/dev/null", "the box's own"),
    ("/dev/shm/a", "the box's own"),
    ("/.immure", "the box's own"),
    ("/.immure/sentinel", "the box's own"),
]


@pytest.mark.parametrize(("target", "reason"), REFUSED)
def test_a_target_that_is_refused(target: str, reason: str) -> None:
    for entry, field in ((folder("/a", target), "target"), ({"tmpfs": target}, "tmpfs")):
        with pytest.raises(SpecError) as caught:
            plan_of(folder("/x", "/x"), entry)
        assert caught.value.path == f"$.spec.files.mounts[1].{field}"
        assert reason in str(caught.value)


@pytest.mark.parametrize("target", ["/a", "/a/b/c", "/..a", "/a..", "/...", "/procfs", "/devices", "/usr/a", "/etc"])
def test_a_target_that_may_be(target: str) -> None:
    assert [op.path for op in of_kind(plan_of(folder("/src", target)).root, UserMount)] == [target]


@pytest.mark.parametrize(
    ("first", "second"),
    [("/a", "/a"), ("/a", "/a/"), ("/a", "//a"), ("/a/b", "/a/./b"), ("/tmp", "/tmp")],
)
def test_two_mounts_have_two_targets(first: str, second: str) -> None:
    for one in (folder("/x", first), {"tmpfs": first}):
        with pytest.raises(SpecError, match=r"that of mounts\[0\] too") as caught:
            plan_of(one, folder("/y", second))
        assert caught.value.path == "$.spec.files.mounts[1].target"


def test_targets_are_normalised() -> None:
    (op,) = of_kind(plan_of(folder("/src", "//a/./b//")).root, UserMount)
    assert op.path == "/a/b"


@pytest.mark.parametrize(("access", "attributes"), [("ro", NOSUID | NODEV | RDONLY), ("rw", NOSUID | NODEV)])
def test_access(access: str, attributes: int) -> None:
    (op,) = of_kind(plan_of(folder("/src", "/a", access)).root, UserMount)
    assert (op.source, op.attributes) == ("/src", attributes)


def test_review_is_refused_for_now() -> None:
    with pytest.raises(SpecError, match="review mounts can't be made"):
        plan_of(folder("/src", "/a", "review"))


def test_a_folder_gets_its_mount_point_in_the_image() -> None:
    plan = plan_of(folder("/src", "/a/b"))
    assert made_in_image(plan, "a", "a/b") == ["a", "a/b"]
    assert not of_kind(plan.root, MakeDir)


def test_a_file_gets_an_empty_file_in_the_image() -> None:
    plan = plan_of(folder("/src/f", "/a/f"), files=("/src/f",))
    (point,) = [op for op in of_kind(plan.template, File) if op.path == "a/f"]
    assert point.data == b""
    assert made_in_image(plan, "a", "a/f") == ["a", "a/f"]


def test_a_file_of_the_image_can_be_covered() -> None:
    plan = plan_of(folder("/src/f", "/etc/passwd"), files=("/src/f",))
    assert len([op for op in plan.template if getattr(op, "path", "") == "etc/passwd"]) == 1
    assert [op.path for op in of_kind(plan.root, UserMount)] == ["/etc/passwd"]


@pytest.mark.parametrize("target", ["/tmp", "/usr", "/etc", "/opt", "/home"])
def test_what_is_there_is_not_made_again(target: str) -> None:
    plan = plan_of(folder("/src", target))
    assert made_in_image(plan, target.lstrip("/")).count(target.lstrip("/")) <= 1
    assert not of_kind(plan.root, MakeDir)


def test_two_mounts_share_the_folders_above_them() -> None:
    plan = plan_of(folder("/x", "/a/x"), folder("/y", "/a/y"))
    assert made_in_image(plan, "a", "a/x", "a/y") == ["a", "a/x", "a/y"]


@pytest.mark.parametrize("target", ["/tmp/a", "/tmp/a/b"])
def test_in_the_private_space_the_box_makes_the_point_itself(target: str) -> None:
    plan = plan_of(folder("/src", target))
    assert [op.path for op in of_kind(plan.root, MakeDir)] == [target]
    assert not made_in_image(plan, target.lstrip("/"))


def test_a_file_in_the_private_space() -> None:
    plan = plan_of(folder("/src/f", "/tmp/a/f"), files=("/src/f",))
    assert [op.path for op in of_kind(plan.root, MakeDir)] == ["/tmp/a"]
    assert [op.path for op in of_kind(plan.root, MakeFile)] == ["/tmp/a/f"]


def test_in_a_tmpfs_the_point_is_made_after_it() -> None:
    # Written in the other order on purpose.
    plan = plan_of(folder("/src", "/t/a"), {"tmpfs": "/t"})
    steps = [(type(op).__name__, op.path) for op in plan.root if getattr(op, "path", "").startswith("/t/a")]
    assert steps == [("MakeDir", "/t/a"), ("UserMount", "/t/a")]
    paths = [getattr(op, "path", "") for op in plan.root]
    assert paths.index("/t") < paths.index("/t/a")
    assert made_in_image(plan, "t", "t/a") == ["t"]


@pytest.mark.parametrize("target", ["/a/b", "/usr/share/b", "/etc/alternatives/b"])
def test_in_what_is_shown_of_the_host_nothing_is_made(target: str) -> None:
    plan = plan_of(folder("/x", "/a"), folder("/y", target))
    assert not made_in_image(plan, target.lstrip("/"))
    assert not of_kind(plan.root, MakeDir)
    assert target in [op.path for op in of_kind(plan.root, UserMount)]


def test_the_deepest_folder_above_decides() -> None:
    plan = plan_of(folder("/x", "/tmp/a"), folder("/y", "/tmp/a/b"), {"tmpfs": "/tmp/a/c"}, folder("/z", "/tmp/a/c/d"))
    assert [op.path for op in of_kind(plan.root, MakeDir)] == ["/tmp/a", "/tmp/a/c/d"]


def test_outer_mounts_come_first() -> None:
    plan = plan_of(folder("/3", "/a/b/c"), folder("/1", "/a"), folder("/x", "/a-b"), folder("/2", "/a/b"))
    targets = [op.path for op in of_kind(plan.root, UserMount)]
    assert all(targets.index(outer) < targets.index(inner) for outer, inner in [("/a", "/a/b"), ("/a/b", "/a/b/c")])


_NAMES = st.sampled_from(["a", "b", "tmp", "usr", "etc", "shm"])
_TARGETS = st.lists(_NAMES, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(st.tuples(_TARGETS, st.booleans()), max_size=6, unique_by=lambda pair: pair[0]))
def test_every_mount_is_placed_once_and_after_what_it_lies_in(wanted: list[tuple[str, bool]]) -> None:
    plan = plan_of(*({"tmpfs": target} if own else folder("/src", target) for target, own in wanted))
    placed = [op.path for op in plan.root if isinstance(op, UserMount | Share)]
    assert sorted(placed) == sorted(target for target, _ in wanted)
    for index, inner in enumerate(placed):
        assert not any(outer.startswith(inner + "/") for outer in placed[:index])
    # Nothing in the image is made twice.
    paths = [op.path for op in plan.template if isinstance(op, Dir)]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize(
    ("limits", "tmpfs", "left"),
    [({}, [], 1024), ({"disk_mib": 64}, [], 64), ({}, [24], 1000), ({"disk_mib": 64}, [16, 32], 16)],
)
def test_the_private_space_is_what_the_tmpfs_mounts_leave(
    limits: dict[str, object], tmpfs: list[int], left: int
) -> None:
    entries = [{"tmpfs": f"/t{index}", "size_mib": size} for index, size in enumerate(tmpfs)]
    plan = plan_of(*entries, limits=limits)
    (private,) = of_kind(plan.root, Private)
    assert private.options.startswith(f"size={left}m,")
    sizes = [op.options.split(",")[0] for op in of_kind(plan.root, MountNew) if op.kind == "tmpfs"]
    assert sizes == [f"size={size}m" for size in tmpfs]


def test_tmpfs_mounts_that_leave_nothing_are_refused() -> None:
    for limits, sizes in (({}, [1024]), ({"disk_mib": 64}, [32, 32]), ({"disk_mib": 1}, [2])):
        entries = [{"tmpfs": f"/t{index}", "size_mib": size} for index, size in enumerate(sizes)]
        with pytest.raises(SpecError) as caught:
            plan_of(*entries, limits=limits)
        assert caught.value.path == "$.spec.limits.disk_mib"


def test_no_space_of_a_box_is_without_a_bound() -> None:
    plan = plan_of({"tmpfs": "/t"}, {"tmpfs": "/u", "size_mib": 4}, {"tmpfs": "/v"}, limits={"disk_mib": 64})
    spaces = [op.options for op in plan.root if isinstance(op, Private) or getattr(op, "kind", "") == "tmpfs"]
    assert len(spaces) == 2
    assert all("size=" in options for options in spaces), spaces
    # Without a size it is a part of the private space, under a name of its own.
    (private,) = of_kind(plan.root, Private)
    shares = of_kind(plan.root, Share)
    assert [op.path for op in shares] == ["/t", "/v"]
    names = [op.name for op in shares] + [folder.name for folder in private.folders]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", ["/bin/tool", "/lib64/x/y"])
def test_a_target_beneath_a_link_of_the_image_is_followed(target: str) -> None:
    # /bin leads to usr/bin, which is the host's and read-only: no mount point can be made there.
    plan = plan_of(folder("/src/f", target), files=("/src/f",))
    assert [op.path for op in of_kind(plan.root, UserMount)] == [f"/usr{target}"]
    assert not [op for op in plan.template if getattr(op, "path", "").startswith((target[1:], f"usr{target}"))]


def test_one_place_by_two_names_is_one_place() -> None:
    with pytest.raises(SpecError, match=r"that of mounts\[0\] too"):
        plan_of(folder("/x", "/usr/bin/tool"), folder("/y", "/bin/tool"))
