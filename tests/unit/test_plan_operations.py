"""Every operation says in one line of plain text what it will do."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hosts import V2, compiled, make_facts, make_spec, mounts, plain_facts

from immure.plan.operations import (
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    Bind,
    CgroupLimit,
    Copy,
    Device,
    Dir,
    Disk,
    File,
    Folder,
    Freeze,
    Hide,
    Hostname,
    Link,
    Loopback,
    MakeDir,
    MakeFile,
    MountNew,
    Operation,
    Private,
    RootOp,
    Share,
    Show,
    TemplateOp,
    UserMount,
)

DESCRIBED = [
    (Dir(path="a/b", mode=0o755), "mkdir -m 0755 a/b"),
    (Link(path="bin", target="usr/bin"), "ln -s usr/bin bin"),
    (File(path="etc/passwd", mode=0o644, data=b"1234"), "write etc/passwd (4 bytes, mode 0644)"),
    (Copy(path="etc/hosts", source="/etc/hosts", mode=0o644), "copy /etc/hosts to etc/hosts"),
    (Bind(path="usr", source="/usr", attributes=RDONLY | NOSUID | NODEV), "bind /usr on usr (ro,nosuid,nodev)"),
    (Device(path="dev/null", mode=0o666, major=1, minor=3), "mknod dev/null c 1 3"),
    (
        MountNew(kind="proc", path="/proc", options="", flags=NOSUID | NODEV | NOEXEC),
        "mount proc on /proc (nosuid,nodev,noexec)",
    ),
    (
        MountNew(kind="tmpfs", path="/t", options="size=4m", flags=NOSUID | NODEV),
        "mount tmpfs on /t (nosuid,nodev,size=4m)",
    ),
    (
        Private(
            options="size=4m",
            flags=NOSUID | NODEV,
            folders=(Folder(path="/tmp", name="tmp", mode=0o1777), Folder(path="/dev/shm", name="shm", mode=0o1777)),
        ),
        "mount one tmpfs for /tmp /dev/shm (nosuid,nodev,size=4m)",
    ),
    (
        Disk(
            device="vdb",
            kind="ext4",
            options="discard",
            flags=NOSUID | NODEV,
            folders=(Folder(path="/tmp", name="tmp", mode=0o1777),),
        ),
        "mount the disk vdb for /tmp (ext4,nosuid,nodev,discard)",
    ),
    (Share(path="/t", name="space0", mode=0o1777), "share the private space on /t"),
    (MakeDir(path="/tmp/a", mode=0o755), "mkdir -p /tmp/a"),
    (MakeFile(path="/tmp/a"), "touch /tmp/a"),
    (Hide(path="/proc/kcore", cover="/dev/null"), "hide /proc/kcore"),
    (Freeze(path="/proc/sys", attributes=RDONLY), "freeze /proc/sys (ro)"),
    (UserMount(source="/s", path="/a", attributes=NOSUID | NODEV | RDONLY), "attach /s on /a (ro,nosuid,nodev)"),
    (UserMount(source="/s", path="/a", attributes=0), "attach /s on /a (rw)"),
    (Show(source="/m/0", path="/a", attributes=RDONLY), "show /m/0 on /a (ro)"),
    (Show(source="/m/0", path="/a", attributes=0, changes="/c"), "show /m/0 on /a (rw), written to /c"),
    (Hostname(name="box"), "hostname box"),
    (Loopback(), "ip link set lo up"),
]


@pytest.mark.parametrize(("operation", "text"), DESCRIBED, ids=[text for _, text in DESCRIBED])
def test_described(operation: Operation, text: str) -> None:
    assert operation.describe() == text


def test_every_operation_is_described_here() -> None:
    assert {type(operation) for operation, _ in DESCRIBED} == {*get_args(TemplateOp), *get_args(RootOp)}


def test_a_limit_is_described() -> None:
    limit = CgroupLimit(parent="/sys/fs/cgroup/ours", file="memory.max", value="4096")
    assert limit.describe() == "cgroup in /sys/fs/cgroup/ours: memory.max = 4096"


@pytest.mark.parametrize("kind", [TemplateOp, RootOp], ids=["template", "root"])
def test_a_kind_has_one_name_on_the_wire(kind: object) -> None:
    tags = [one.__struct_config__.tag for one in get_args(kind)]
    assert len(tags) == len(set(tags))


@pytest.mark.parametrize(("operation", "text"), DESCRIBED, ids=[text for _, text in DESCRIBED])
def test_an_operation_survives_the_wire(operation: Operation, text: str) -> None:
    kind = TemplateOp if isinstance(operation, get_args(TemplateOp)) else RootOp
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(operation), type=kind) == operation


def test_a_plan_describes_all_of_itself() -> None:
    spec = make_spec(
        files=mounts({"source": "/s", "target": "/a"}, {"tmpfs": "/t", "size_mib": 4}), limits={"pids": 9, "cpus": 1}
    )
    plan = compiled(spec, make_facts(cgroups=V2))
    lines = plan.describe()
    assert lines[0].startswith("namespaces mount cgroup uts ipc user pid")
    for op in plan.template:
        assert f"image: {op.describe()}" in lines
    for op in plan.root:
        assert f"box: {op.describe()}" in lines
    for limit in plan.cgroup:
        assert limit.describe() in lines
    assert plan.landlock is not None
    assert sum(line.startswith("landlock: ") for line in lines) == len(plan.landlock.rules)
    assert sum("seccomp filter of" in line for line in lines) == len(plan.command.filters)
    assert any("keep capabilities 0x0" in line for line in lines)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "namespaces mount cgroup uts ipc user pid net (made ahead)"),
        ({"processes": {"capabilities": {"add": ["CHOWN"]}}}, "namespaces mount cgroup uts ipc user pid net"),
        ({"level": "L1", "network": {"mode": "host"}}, "namespaces mount cgroup uts ipc user pid"),
    ],
)
def test_the_namespaces_are_described(fields: dict[str, object], expected: str) -> None:
    assert compiled(make_spec(**fields), plain_facts()).describe()[0] == expected
