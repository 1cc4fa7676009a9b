"""Finds the cgroups in which this user can make others: v2, v1, and hybrids of both."""

from __future__ import annotations

import os
from pathlib import Path

from immure.host.facts import CgroupParent

_WANTED = ("memory", "pids", "cpu")
_MOUNT = Path("/sys/fs/cgroup")


def membership() -> str:
    """/proc/self/cgroup: part of what facts are keyed by."""
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def find_parents() -> tuple[CgroupParent, ...]:
    """One entry for each hierarchy that has wanted controllers and a place to write."""
    found: list[CgroupParent] = []
    for line in membership().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            found += _unified(path)
        else:
            found += _legacy(controllers.split(","), path)
    return tuple(found)


def _legacy(controllers: list[str], path: str) -> list[CgroupParent]:
    wanted = tuple(name for name in controllers if name in _WANTED)
    if not wanted:
        return []
    mount = _MOUNT / ",".join(controllers)
    # In a container the path is the host's, but the mount may show the own cgroup as its root.
    for place in (mount / path.lstrip("/"), mount):
        if os.access(place / "cgroup.procs", os.W_OK) and os.access(place, os.W_OK):
            return [CgroupParent(controllers=wanted, path=str(place), version=1)]
    return []


def _unified(path: str) -> list[CgroupParent]:
    mount = _MOUNT if (_MOUNT / "cgroup.controllers").is_file() else _MOUNT / "unified"
    own = mount / path.lstrip("/")
    # Processes may stand in leaves alone, so boxes' cgroups are made beside ours, in the nearest cgroup above that
    # passes controllers on and that this user may write.
    for place in (own, *own.parents):
        if not place.is_relative_to(mount):
            break
        passed = _words(place / "cgroup.subtree_control")
        wanted = tuple(name for name in _WANTED if name in passed)
        if wanted and os.access(place, os.W_OK) and os.access(place / "cgroup.procs", os.W_OK):
            return [CgroupParent(controllers=wanted, path=str(place), version=2)]
    return []


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
