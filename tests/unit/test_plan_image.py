"""`image: host`: an allowlist of the host's root, never the root itself."""

from __future__ import annotations

import pytest
from hosts import IMAGE, compiled, make_facts, make_spec, of_kind, plain_facts

from immure.plan.model import Plan
from immure.plan.operations import (
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    Bind,
    Copy,
    Device,
    Dir,
    File,
    Freeze,
    Hide,
    Hostname,
    Link,
    MountNew,
    Private,
)

DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def files(plan: Plan) -> dict[str, str]:
    return {op.path: op.data.decode() for op in of_kind(plan.template, File)}


@pytest.mark.parametrize("facts", [make_facts(), plain_facts()], ids=["root", "plain"])
def test_only_the_allowlist_is_shown(facts: object) -> None:
    plan = compiled(make_spec(), facts)
    shown = {op.source for op in of_kind(plan.template, Bind)} - {f"/dev/{name}" for name in DEVICES}
    assert shown == set(IMAGE.folders)
    assert {op.source for op in of_kind(plan.template, Copy)} == set(IMAGE.copies)


def test_what_is_shown_of_the_host_is_read_only() -> None:
    for op in of_kind(compiled(make_spec()).template, Bind):
        assert op.attributes == RDONLY | NOSUID | NODEV


def test_the_links_of_the_root_are_kept() -> None:
    links = {op.path: op.target for op in of_kind(compiled(make_spec()).template, Link)}
    assert links["bin"] == "usr/bin"
    assert links["etc/localtime"] == IMAGE.localtime
    assert links["etc/mtab"] == "/proc/self/mounts"


def test_root_makes_devices_and_a_plain_user_shows_the_hosts() -> None:
    made = {op.path: (op.major, op.minor) for op in of_kind(compiled(make_spec()).template, Device)}
    assert made == {f"dev/{name}": number for name, number in DEVICES.items()}
    plan = compiled(make_spec(), plain_facts())
    assert not of_kind(plan.template, Device)
    shown = {op.path: op for op in of_kind(plan.template, Bind) if op.path.startswith("dev/")}
    assert {op.source for op in shown.values()} == {f"/dev/{name}" for name in DEVICES}
    # A device of the host must stay usable: no nodev.
    assert {op.attributes for op in shown.values()} == {NOSUID | NOEXEC}


def test_a_folder_stands_before_what_is_in_it() -> None:
    for facts in (make_facts(), plain_facts()):
        seen: set[str] = set()
        for op in compiled(make_spec(), facts).template:
            above = op.path.rpartition("/")[0]
            assert above in seen or not above, op
            seen.add(op.path)


def test_paths_are_relative_to_the_image() -> None:
    for op in compiled(make_spec()).template:
        assert not op.path.startswith("/")
        assert ".." not in op.path.split("/")


@pytest.mark.parametrize(
    ("user", "passwd", "group"),
    [
        (1000, "user:x:1000:1000:user:/tmp:/bin/sh", "user:x:1000:"),
        (0, "root:x:0:0:root:/tmp:/bin/sh", "root:x:0:"),
        (65534, "nobody:x:65534:65534:nobody:/nonexistent:/bin/false", "nogroup:x:65534:"),
        (5, "user:x:5:5:user:/tmp:/bin/sh", "tty:x:5:"),
    ],
)
def test_the_user_has_a_name(user: int, passwd: str, group: str) -> None:
    found = files(compiled(make_spec(processes={"user": user})))
    for file, line in (("etc/passwd", passwd), ("etc/group", group)):
        lines = found[file].splitlines()
        assert line in lines
        ids = [one.split(":")[2] for one in lines]
        assert len(ids) == len(set(ids))


def test_the_resolver_follows_the_network() -> None:
    closed, opened = compiled(make_spec()), compiled(make_spec(level="L1", network={"mode": "host"}))
    assert "nameserver" not in files(closed)["etc/resolv.conf"]
    assert "/etc/resolv.conf" in {op.source for op in of_kind(opened.template, Copy)}
    assert "etc/resolv.conf" not in files(opened)


def test_proc_is_new_masked_and_frozen() -> None:
    root = compiled(make_spec()).root
    first = root[0]
    assert isinstance(first, MountNew)
    assert (first.kind, first.path, first.flags) == ("proc", "/proc", NOSUID | NODEV | NOEXEC)
    assert {op.path for op in of_kind(root, Hide)} == {"/proc/kcore", "/proc/keys", "/proc/acpi"}
    assert {op.cover for op in of_kind(root, Hide) if op.path == "/proc/acpi"} == {"/.immure/empty"}
    assert {op.path for op in of_kind(root, Freeze)} == {"/proc/sys", "/proc/sysrq-trigger"}
    assert all(op.attributes & RDONLY for op in of_kind(root, Freeze))


def test_a_host_that_lacks_an_entry_of_proc_gets_no_work() -> None:
    facts = make_facts(proc_hidden_files=(), proc_hidden_folders=(), proc_frozen=())
    root = compiled(make_spec(), facts).root
    assert not of_kind(root, Hide)
    assert not of_kind(root, Freeze)


def test_the_private_space_is_one() -> None:
    (private,) = of_kind(compiled(make_spec()).root, Private)
    assert [(folder.path, folder.mode) for folder in private.folders] == [("/tmp", 0o1777), ("/dev/shm", 0o1777)]
    assert len({folder.name for folder in private.folders}) == 2
    assert private.flags == NOSUID | NODEV


@pytest.mark.parametrize(("facts", "group"), [(make_facts(), True), (plain_facts(), False)], ids=["range", "single"])
def test_terminals_have_their_group_where_it_is_mapped(facts: object, group: bool) -> None:
    (devpts,) = [op for op in of_kind(compiled(make_spec(), facts).root, MountNew) if op.kind == "devpts"]
    assert ("gid=5" in devpts.options) == group
    assert devpts.flags == NOSUID | NOEXEC


def test_the_host_name_is_set() -> None:
    assert [op.name for op in of_kind(compiled(make_spec()).root, Hostname)] == ["immure"]


def test_no_folder_of_the_image_is_made_twice() -> None:
    paths = [op.path for op in of_kind(compiled(make_spec()).template, Dir)]
    assert len(paths) == len(set(paths))
