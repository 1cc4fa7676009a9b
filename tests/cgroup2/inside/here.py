"""What tests in the guest look at: their own cgroup, their boxes', and what is in them."""

from __future__ import annotations

from pathlib import Path

from immure import Sandbox
from immure.engine.prepare import host_facts

CGROUPS = Path("/sys/fs/cgroup")


def own_path() -> str:
    """This process's, from the root of its cgroup namespace."""
    return Path("/proc/self/cgroup").read_text().removeprefix("0::").rstrip("\n")


def parents() -> dict[str, str]:
    """Where boxes' cgroups can be made, nearest first, and what can be limited there."""
    return {one.path.removeprefix(str(CGROUPS)): " ".join(sorted(one.controllers)) for one in host_facts().cgroups}


def cgroup_of(box: Sandbox) -> Path:
    """The host's word for where its first process is."""
    path = Path(f"/proc/{box._box.pid}/cgroup").read_text().removeprefix("0::").rstrip("\n")
    return CGROUPS / path.lstrip("/")


def values(folder: Path, *names: str) -> dict[str, str]:
    return {name: (folder / name).read_text().strip() for name in names}


def count(folder: Path, file: str, key: str) -> int:
    """A number out of a flat keyed file."""
    return int(dict(line.split() for line in (folder / file).read_text().splitlines())[key])


def clauses(of: object) -> dict[str, tuple[str, str]]:
    """What the report of a result or a box says of the three limits, and why."""
    named = {"limits.memory_mib": "memory", "limits.cpus": "cpus", "limits.pids": "pids"}
    return {named[one.clause]: (one.got, one.why) for one in of.report if one.clause in named}  # type: ignore[attr-defined]
