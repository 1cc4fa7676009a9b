"""An image that is a folder: what of it is shown and how, and where mounts can stand in it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hosts import make_facts, make_inputs, make_spec, mounts, of_kind, plain_facts
from hypothesis import given
from hypothesis import strategies as st

from immure.errors import SpecError
from immure.host.facts import ImageEntry, ImageFolder, Place
from immure.host.links import first_name, through_links
from immure.plan.compile import compile_plan
from immure.plan.launching import make_launch
from immure.plan.model import Plan
from immure.plan.operations import NODEV, NOSUID, RDONLY, Bind, Copy, Dir, File, Link, MakeDir, UserMount
from immure.policy.landlock import FILE_RIGHTS, READ

ENTRIES = {
    "usr": "folder",
    "etc": "folder",
    "var": "folder",
    "bin": "usr/bin",
    "out": "/etc",
    "up": "../../../usr/bin",
    "init": "file",
    "wall": "other",
}


def image(entries: dict[str, str] = ENTRIES, *, path: str = "/img", **places: Place) -> ImageFolder:
    """A folder with these entries: a kind, or where a link leads."""
    kinds: dict[str, Any] = {"folder": "folder", "file": "file", "other": "other"}
    return ImageFolder(
        path=path,
        entries=tuple(
            ImageEntry(name=name, kind=kinds.get(what, "link"), target="" if what in kinds else what)
            for name, what in entries.items()
        ),
        places={place.path: place for place in places.values()},
        listing=((1, 2, 3), ()),
    )


def plan_of(folder: ImageFolder, *entries: dict[str, object], files: tuple[str, ...] = (), **fields: Any) -> Plan:
    spec = make_spec(image="./img", files=mounts(*entries), **fields)
    return compile_plan(spec, make_facts(), make_inputs(spec, files=files, image=folder))


def folder_mount(target: str) -> dict[str, object]:
    return {"source": "/src", "target": target}


def test_folders_and_files_are_shown_read_only_and_are_never_what_a_link_leads_to() -> None:
    binds = {op.path: op for op in of_kind(plan_of(image()).template, Bind) if not op.path.startswith("dev/")}
    assert {path: op.source for path, op in binds.items()} == {
        name: f"/img/{name}" for name in ("usr", "etc", "var", "init")
    }
    for op in binds.values():
        assert op.attributes == RDONLY | NOSUID | NODEV
        assert not op.follow
    # A copy that root makes would be everybody's to read.
    assert not of_kind(plan_of(image()).template, Copy)


def test_links_are_kept_as_they_are() -> None:
    links = {op.path: op.target for op in of_kind(plan_of(image()).template, Link) if not op.path.startswith("dev/")}
    assert links == {"bin": "usr/bin", "out": "/etc", "up": "../../../usr/bin"}


def test_what_is_no_file_is_left_out() -> None:
    assert "wall" not in {getattr(op, "path", "") for op in plan_of(image()).template}


def test_nothing_is_generated_in_its_etc() -> None:
    ops = plan_of(image()).template
    assert [op.path for op in ops if getattr(op, "path", "").startswith("etc/")] == []
    assert {".immure/sentinel"} <= {op.path for op in of_kind(ops, File)}


def test_what_every_root_has_is_made_where_it_is_missing() -> None:
    made = {op.path for op in of_kind(plan_of(image({"usr": "folder", "home": "/usr", "srv": "file"})).template, Dir)}
    assert {"dev", "proc", "tmp", "etc", "run", "var", "root", "mnt", "opt", ".immure", "usr"} <= made
    assert not made & {"home", "srv", "sys"}


@pytest.mark.parametrize("facts", [make_facts(), plain_facts()], ids=["root", "plain"])
@pytest.mark.parametrize(
    "folder",
    [image(), image({}), image({"etc": "/etc", "usr": "../..", "home": "file"})],
    ids=["usual", "empty", "odd"],
)
def test_a_folder_stands_before_what_is_in_it_and_nothing_goes_through_a_link(folder: ImageFolder, facts: Any) -> None:
    spec = make_spec(image="./img", files=mounts(folder_mount("/data/x")))
    plan = compile_plan(spec, facts, make_inputs(spec, image=folder))
    made: set[str] = set()
    links: set[str] = set()
    for op in plan.template:
        above = op.path.rpartition("/")[0]
        assert not above or above in made, op
        assert first_name(op.path) not in links or op.path in links, op
        (links if isinstance(op, Link) and "/" not in op.path else made).add(op.path)


def test_landlock_allows_reading_what_is_shown_and_no_more() -> None:
    plan = plan_of(image())
    assert plan.landlock is not None
    rules = {rule.path: rule.access for rule in plan.landlock.rules}
    assert {path for path in rules if path not in ("/", "/proc", "/dev", "/tmp", "/dev/shm")} == {
        "/usr",
        "/etc",
        "/var",
        "/init",
    }
    assert rules["/usr"] == rules["/etc"] == READ
    assert rules["/init"] == READ & FILE_RIGHTS


def test_another_folder_of_that_name_is_another_template() -> None:
    def key(listing: Any) -> bytes:
        plan = plan_of(msgspec.structs.replace(image(), listing=listing))
        return msgspec.msgpack.decode(plan.wire())["template_key"]

    assert key(((1, 2, 3), ())) == key(((1, 2, 3), ()))
    assert key(((1, 2, 3), ())) != key(((1, 9, 3), ()))


def test_the_launch_knows_its_image() -> None:
    spec = make_spec(image="./img")
    inputs = make_inputs(spec, image=image())
    launch = make_launch(compile_plan(spec, make_facts(), inputs), spec, make_facts(), inputs)
    assert launch.image == ("/img", ((1, 2, 3), ()))
    assert (launch.workdir, launch.env["HOME"]) == ("/tmp", "/tmp")


def test_a_box_without_namespaces_has_no_image() -> None:
    with pytest.raises(SpecError, match="without a mount namespace") as caught:
        plan_of(image(), level="L1", processes={"namespaces": "none"})
    assert caught.value.path == "$.spec.image"


# Where mounts stand.


def test_at_the_top_a_place_is_made() -> None:
    plan = plan_of(image(), folder_mount("/data/in"))
    assert [op.path for op in of_kind(plan.template, Dir) if op.path.startswith("data")] == ["data", "data/in"]


def test_in_what_is_shown_it_must_be_there() -> None:
    there = Place(path="/var/lib", kind="folder")
    plan = plan_of(image(there=there), folder_mount("/var/lib"))
    assert [op.path for op in of_kind(plan.root, UserMount)] == ["/var/lib"]
    assert not [op for op in plan.template if getattr(op, "path", "").startswith("var/")]


ABSENT = [
    (Place(path="/var/lib", kind="missing", detail="No such file or directory"), "/var/lib/x", "/var/lib: No such"),
    (Place(path="/var/lib", kind="link", detail="/etc"), "/var/lib/x", "symbolic link to /etc"),
    (Place(path="/var/lib", kind="file"), "/var/lib", "/var/lib is a file"),
    (Place(path="/var/lib", kind="file"), "/var/lib/x", "/var/lib is a file"),
    (Place(path="/init", kind="file"), "/init", "/init is a file"),
    (Place(path="/var/lib", kind="other"), "/var/lib", "socket, pipe or device"),
]


@pytest.mark.parametrize(("place", "target", "have"), ABSENT)
def test_a_place_that_is_none_is_told(place: Place, target: str, have: str) -> None:
    folder = msgspec.structs.replace(image(), places={target: place})
    for entry, field in ((folder_mount(target), "target"), ({"tmpfs": target}, "tmpfs")):
        with pytest.raises(SpecError) as caught:
            plan_of(folder, folder_mount("/data"), entry)
        error = caught.value
        assert error.path == f"$.spec.files.mounts[1].{field}"
        assert error.need is not None
        assert error.need.startswith("a folder")
        assert have in str(error.have)
        assert error.hint


def test_a_file_stands_on_a_file() -> None:
    folder = image(there=Place(path="/init", kind="file"), lib=Place(path="/var/lib", kind="folder"))
    plan = plan_of(folder, folder_mount("/init"), files=("/src",))
    assert [op.path for op in of_kind(plan.template, File) if op.path == "init"] == ["init"]
    with pytest.raises(SpecError, match="no file of the image"):
        plan_of(folder, folder_mount("/var/lib"), files=("/src",))


def test_what_lies_in_another_mount_is_not_the_images() -> None:
    folder = msgspec.structs.replace(
        image(var=Place(path="/var", kind="folder")),
        places={"/var": Place(path="/var", kind="folder"), "/var/x": Place(path="/var/x", kind="missing")},
    )
    assert of_kind(plan_of(folder, folder_mount("/var"), folder_mount("/var/x")).root, UserMount)
    plan = plan_of(folder, {"tmpfs": "/var"}, folder_mount("/var/x"))
    assert [op.path for op in of_kind(plan.root, MakeDir)] == ["/var/x"]
    with pytest.raises(SpecError):
        plan_of(folder, folder_mount("/var/x"))


def test_links_at_the_top_are_followed_as_the_box_does() -> None:
    folder = msgspec.structs.replace(image(), places={"/etc/motd": Place(path="/etc/motd", kind="folder")})
    plan = plan_of(folder, folder_mount("/out/motd"))
    assert [op.path for op in of_kind(plan.root, UserMount)] == ["/etc/motd"]
    assert plan.landlock is not None
    assert "/etc/motd" in {rule.path for rule in plan.landlock.rules}


@pytest.mark.parametrize(
    "links",
    [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "/a/x"}, {"a": ".."}, {"a": "/"}, {"a": "usr/../etc"}, {"a": "/proc"},
     {"a": "dev"}, {"a": ".immure"}, {"a": "b", "b": "/proc/self"}, {"a": "./../../proc"}, {"a": ""}],
    ids=str,
)  # fmt: skip
def test_a_target_on_a_link_that_leads_nowhere_good_is_refused(links: dict[str, str]) -> None:
    for entry in (folder_mount("/a"), {"tmpfs": "/a"}):
        with pytest.raises(SpecError) as caught:
            plan_of(image(links), entry)
        assert caught.value.path.startswith("$.spec.files.mounts[0]")


# Links.


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/bin/x", "/usr/bin/x"),
        ("/out", "/etc"),
        ("/up/x/y", "/usr/bin/x/y"),
        ("/usr/bin", "/usr/bin"),
        ("/", "/"),
        ("/nowhere", "/nowhere"),
        ("/binx", "/binx"),
        ("/usr/../bin", "/usr/../bin"),
    ],
)
def test_where_a_path_leads(path: str, leads_to: str) -> None:
    assert through_links(path, {name: what for name, what in ENTRIES.items() if "/" in what}) == leads_to


_NAMES = st.sampled_from(["a", "b", "c", "..", ".", "", "x"])
_PATHS = st.lists(_NAMES, max_size=4).map("/".join)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), _PATHS | _PATHS.map("/".__add__)), _PATHS.map("/".__add__))
def test_a_path_that_was_followed_goes_through_no_link_or_can_be_told(links: dict[str, str], path: str) -> None:
    found = through_links(path, links)
    assert found.startswith("/")
    # Else it leads round in a circle.
    assert first_name(found) not in links or first_name(through_links(found, links)) in links
