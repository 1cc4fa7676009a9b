"""What confines a VMM, read from the host: proc(5). A VMM can't forge it short of owning the kernel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

_NAMESPACES = ("mnt", "pid", "net")


class Confinement(Struct, frozen=True):
    """Of one process: the loosest that any of its threads has."""

    uid: int
    gid: int
    #: All sets together, as a mask; 0 is none at all.
    capabilities: int
    no_new_privs: bool
    #: 2 is a filter. Firecracker's threads get theirs when they begin their work, the last at the start.
    seccomp: int
    #: Whether what it has for its root is the jail.
    in_jail: bool
    #: Those that it does not share with this process.
    own_namespaces: tuple[str, ...]
    cgroups: tuple[str, ...]


def confinement(pid: int, jail: int) -> Confinement:
    """Of a process and the folder that is its jail, a descriptor. Raises OSError where it is gone."""
    folder = Path(f"/proc/{pid}")
    threads = [_fields(task / "status") for task in (folder / "task").iterdir()]
    sets = [int(one[name], 16) for one in threads for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
    root, jailed = (folder / "root").stat(), os.fstat(jail)
    return Confinement(
        uid=_only(one["Uid"] for one in threads),
        gid=_only(one["Gid"] for one in threads),
        capabilities=max(sets),
        no_new_privs=all(one["NoNewPrivs"] == "1" for one in threads),
        seccomp=min(int(one["Seccomp"]) for one in threads),
        in_jail=(root.st_dev, root.st_ino) == (jailed.st_dev, jailed.st_ino),
        own_namespaces=tuple(name for name in _NAMESPACES if _namespace(pid, name) != _namespace(None, name)),
        cgroups=tuple((folder / "cgroup").read_text().splitlines()),
    )


def _fields(status: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in status.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def _only(ids: Iterable[str]) -> int:
    """The id that all of them are: real, effective, saved and file system's. -1 where they differ."""
    found = {word for line in ids for word in line.split()}
    return int(found.pop()) if len(found) == 1 else -1


def _namespace(pid: int | None, name: str) -> str:
    return os.readlink(f"/proc/{pid or 'thread-self'}/ns/{name}")  # noqa: PTH115
