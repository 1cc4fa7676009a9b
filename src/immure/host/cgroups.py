"""Finds the cgroups in which this user can make others: v2, v1, and hybrids of both.

Sources: Documentation/admin-guide/cgroup-v2.rst; systemd's docs/CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from immure.host.facts import CgroupParent

_Swap = Literal["limited", "none", "uncounted"]
_WANTED = ("memory", "pids", "cpu")
_MOUNT = Path("/sys/fs/cgroup")
_SWAPS = Path("/proc/swaps")
_CONTROL, _PROCESSES = "cgroup.subtree_control", "cgroup.procs"
#: By which systemd says that a cgroup is another's to manage; the first is root's to read (systemd 236, 251).
_DELEGATED = ("trusted.delegate", "user.delegate")
#: What a systemd that manages a cgroup stands in, below it.
_MANAGER = "init.scope"


class Found(NamedTuple):
    """The places, and why there is none of v2; empty where there is one, or no v2."""

    parents: tuple[CgroupParent, ...]
    why_none: str


def membership() -> str:
    """/proc/self/cgroup: part of what facts are keyed by."""
    try:
        return Path("/proc/self/cgroup").read_text()
    except OSError:
        return ""


def find_parents() -> Found:
    """One place for each hierarchy of v1 that has wanted controllers. Of v2 all that will do, the nearest first."""
    found: list[CgroupParent] = []
    why_none = ""
    for line in membership().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            unified, why_none = _unified(path)
            found += unified
        else:
            found += _legacy(controllers.split(","), path)
    return Found(tuple(found), why_none)


def switch_on(parent: CgroupParent) -> None:
    """Has a cgroup that was delegated pass on what it has. Raises OSError."""
    for name in parent.switch_on:
        (Path(parent.path) / _CONTROL).write_text(f"+{name}")


def _legacy(controllers: list[str], path: str) -> list[CgroupParent]:
    wanted = tuple(name for name in controllers if name in _WANTED)
    if not wanted:
        return []
    mount = _MOUNT / ",".join(controllers)
    # In a container the path is the host's, but the mount may show the own cgroup as its root.
    for place in (mount / path.lstrip("/"), mount):
        if _can_be_written(place):
            counted = "memory" not in wanted or (place / "memory.memsw.limit_in_bytes").is_file()
            return [CgroupParent(controllers=wanted, path=str(place), version=1, swap=_swap_where(counted))]
    return []


def _unified(path: str) -> Found:
    """Processes may stand in leaves alone, so boxes' cgroups are made beside ours, in one above that passes on
    controllers and that this user may write.
    """
    mount = _MOUNT if (_MOUNT / "cgroup.controllers").is_file() else _MOUNT / "unified"
    if not (mount / "cgroup.controllers").is_file():
        return Found((), f"no cgroup v2 at {_MOUNT}")
    if ".." in path.split("/"):
        # Of another cgroup namespace: what is mounted does not show ours.
        return Found((), f"this process is in {path}, outside the cgroups at {mount}")
    found: list[CgroupParent] = []
    why_not: list[str] = []
    for place in _upwards(mount / path.lstrip("/"), mount):
        outcome = _parent(place)
        if isinstance(outcome, CgroupParent):
            found.append(outcome)
        elif outcome:
            why_not.append(outcome)
    # What is said of the one that we are in, or of the nearest that is to blame.
    return Found(tuple(found), "" if found or not why_not else why_not[0])


def _upwards(own: Path, mount: Path) -> Iterator[Path]:
    for place in (own, *own.parents):
        if not place.is_relative_to(mount):
            return
        yield place


def _parent(place: Path) -> CgroupParent | str:
    """What can be made there, or why nothing can; empty where that is nobody's fault."""
    if not place.is_dir():
        # What is mounted shows a part: the paths above are those of this host.
        return ""
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        return f"{place} is mounted read-only"
    if not _can_be_written(place):
        return f"{place} can't be written by this user"
    passed = _words(place / _CONTROL)
    to_switch_on = _to_switch_on(place, passed)
    names = tuple(name for name in _WANTED if name in passed or name in to_switch_on)
    if not names:
        return _why_nothing_is_passed(place)
    return CgroupParent(controllers=names, path=str(place), version=2, switch_on=to_switch_on, swap=_swap(place))


def _to_switch_on(place: Path, passed: list[str]) -> tuple[str, ...]:
    """What a cgroup of ours has and does not pass on: systemd leaves that to whom it has delegated it to.

    It is ours alone to switch where it is marked so and nobody else manages it, or its manager would undo it. Where
    processes stand in it the kernel refuses.
    """
    if not _is_delegated(place) or (place / _MANAGER).is_dir() or _words(place / _PROCESSES):
        return ()
    given = _words(place / "cgroup.controllers")
    return tuple(name for name in _WANTED if name in given and name not in passed)


def _why_nothing_is_passed(place: Path) -> str:
    if not {*_words(place / "cgroup.controllers")} & {*_WANTED}:
        return f"{place} has no controller of memory, pids or cpu"
    if _words(place / _PROCESSES):
        return f"{place} can't pass controllers on, since processes stand in it"
    return f"{place} passes no controller on (cgroup.subtree_control)"


def _is_delegated(place: Path) -> bool:
    for name in _DELEGATED:
        try:
            if os.getxattr(place, name) == b"1":
                return True
        except OSError:
            continue
    return False


def _swap(place: Path) -> _Swap:
    """As some cgroup there shows it that has the memory controller: kernels are built and started without."""
    for one in (place, *(entry for entry in place.iterdir() if entry.is_dir())):
        if (one / "memory.max").is_file():
            return _swap_where((one / "memory.swap.max").is_file())
    return "limited"


def _swap_where(counted: bool) -> _Swap:
    """A kernel that can't swap has no list of what it swaps to."""
    return "limited" if counted else "uncounted" if _SWAPS.is_file() else "none"


def _can_be_written(place: Path) -> bool:
    return os.access(place / _PROCESSES, os.W_OK) and os.access(place, os.W_OK)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
