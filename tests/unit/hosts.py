"""Hosts, specs and plans for the tests of the pure core. Nothing here looks at this machine."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from immure.host.facts import CgroupParent, HostFacts, HostImage, IdRange, ImageFolder, Missing, SourceFacts
from immure.plan.compile import compile_plan
from immure.plan.launch import Launch
from immure.plan.launching import make_launch
from immure.plan.model import Inputs, Plan
from immure.plan.operations import Operation
from immure.policy.seccomp import Profile, parse_profile
from immure.spec.loading import convert
from immure.spec.models import SandboxSpec

O = TypeVar("O", bound=Operation)  # noqa: E741

IMAGE = HostImage(
    links=(("bin", "usr/bin"), ("lib64", "usr/lib64")),
    folders=("/usr", "/etc/alternatives"),
    copies=("/etc/ld.so.cache", "/etc/ssl/certs/ca-certificates.crt"),
    localtime="/usr/share/zoneinfo/UTC",
)
RANGES = IdRange(kind="ranges", base_uid=0x7000_0000, base_gid=0x7000_0000, size=65_536, slots=4_000)
SINGLE = IdRange(kind="single")
#: cgroup hierarchies: v1 has one for each controller, v2 one for all, and some hosts let nobody write.
NO_CGROUPS: tuple[CgroupParent, ...] = ()
V1 = tuple(
    CgroupParent(controllers=(name,), path=f"/sys/fs/cgroup/{name}/ours", version=1)
    for name in ("memory", "cpu", "pids")
)
V2 = (CgroupParent(controllers=("memory", "cpu", "pids"), path="/sys/fs/cgroup/ours", version=2),)
REFUSED = Missing(need="user namespaces for this user", have="Operation not permitted", command="sysctl -w x=1")

_ROOT: dict[str, Any] = {
    "kernel": (6, 12),
    "arch": "x86_64",
    "boot_id": "5f1c6f1e-0000-4000-8000-000000000000",
    "root": True,
    "switches_user": True,
    "uid": 0,
    "gid": 0,
    "groups": (0,),
    "landlock_abi": 7,
    "last_capability": 40,
    "image": IMAGE,
    "proc_hidden_files": ("kcore", "keys"),
    "proc_hidden_folders": ("acpi",),
    "proc_frozen": ("sys", "sysrq-trigger"),
    "ids": RANGES,
    "cgroups": NO_CGROUPS,
}
_PLAIN: dict[str, Any] = {
    "root": False,
    "switches_user": False,
    "uid": 1001,
    "gid": 1001,
    "groups": (1001,),
    "ids": SINGLE,
}


def make_facts(**changes: Any) -> HostFacts:
    """A host where everything works, seen by its root."""
    return HostFacts(**{**_ROOT, **changes})


def plain_facts(**changes: Any) -> HostFacts:
    """The same host, seen by a plain user without a range of ids."""
    return make_facts(**{**_PLAIN, **changes})


def make_spec(**fields: Any) -> SandboxSpec:
    """A spec from what a document would hold."""
    return convert(fields, SandboxSpec, path="$.spec")


def mounts(*entries: dict[str, object]) -> dict[str, object]:
    """The `files` of a spec with these mounts."""
    return {"mounts": list(entries)}


def profile(default: str = "SCMP_ACT_ERRNO") -> Profile:
    """A filter that compiles at once."""
    rule = {"names": ["read", "execve"], "action": "SCMP_ACT_ALLOW"}
    return parse_profile(msgspec.json.encode({"defaultAction": default, "syscalls": [rule]}), source="test")


def make_inputs(
    spec: SandboxSpec,
    *,
    files: tuple[str, ...] = (),
    default: str = "SCMP_ACT_ERRNO",
    image: ImageFolder | None = None,
) -> Inputs:
    """What would have been read for `spec`: sources are folders, but for those named in `files`."""
    sources = tuple(
        SourceFacts(path=mount.source, kind="file" if mount.source in files else "folder")
        for mount in spec.files.mounts
        if mount.source is not None
    )
    return Inputs(sources=sources, profile=profile(default), image=image)


def compiled(spec: SandboxSpec, facts: HostFacts | None = None, *, files: tuple[str, ...] = ()) -> Plan:
    """The plan of `spec` on a host where everything works, or on another."""
    return compile_plan(spec, facts or make_facts(), make_inputs(spec, files=files))


def launched(spec: SandboxSpec, facts: HostFacts | None = None, *, files: tuple[str, ...] = ()) -> Launch:
    """The launch of that plan."""
    facts = facts or make_facts()
    inputs = make_inputs(spec, files=files)
    return make_launch(compile_plan(spec, facts, inputs), spec, facts, inputs)


def of_kind(operations: tuple[Any, ...], kind: type[O]) -> list[O]:
    """The operations that are of this kind, in order."""
    return [one for one in operations if isinstance(one, kind)]


def clauses(plan: Plan) -> dict[str, tuple[str, str]]:
    """What each clause got, and by what."""
    return {one.clause: (one.got, one.by) for one in plan.report}


def decoded(plan: Plan) -> dict[str, Any]:
    """The wire form, as the native program sees it."""
    return msgspec.msgpack.decode(plan.wire())
