"""What boxes could leave behind, as far as this process and those below it show."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from immure.engine.prepare import host_facts

from .processes import descendants, end_spare, open_descriptors, spawner_pids


def traces() -> Counter[str]:
    """A line for each thing, and how many there are: the same before boxes were made and after they are gone.

    What spawners have begun ahead is nobody's, and no trace of a box that was: it is ended first.
    """
    spawners = sorted(spawner_pids())
    for spawner in spawners:
        end_spare(spawner)
    found = Counter(f"process {one.name} {one.state}" for one in descendants() if one.pid not in spawners)
    found.update(f"cgroup {path}" for path in cgroups(spawners))
    found.update(f"file {path}" for path in state_files())
    for pid in (os.getpid(), *spawners):
        name = "caller" if pid == os.getpid() else f"spawner {pid}"
        found.update(f"{name}: {thing}" for thing in (*descriptors(pid), *mounts(pid), *namespaces(pid)))
    return found


def descriptors(pid: int) -> Iterator[str]:
    """By kind: the numbers of sockets and the like differ.

    Without user namespaces: a spawner keeps those that it has made for mounts of other owners, up to a number.
    """
    kinds = (link.partition(":[")[0] for link in open_descriptors(pid).values())
    yield from (f"descriptor {kind}" for kind in kinds if kind != "user")


def mounts(pid: int) -> Iterator[str]:
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        yield "mount " + " ".join([line.split()[4], line.rpartition(" - ")[2]])


def namespaces(pid: int) -> Iterator[str]:
    """But for those of network and mounts: a spawner stands in what the next box will have, or the last one had."""
    for entry in Path(f"/proc/{pid}/ns").iterdir():
        if not entry.name.startswith(("net", "mnt")):
            try:
                yield f"namespace {entry.readlink()}"
            except OSError:
                # Of a process that is not dumpable a plain user is told nothing.
                continue


def cgroups(spawners: list[int]) -> Iterator[Path]:
    for parent in host_facts().cgroups:
        for pid in spawners:
            yield from Path(parent.path).glob(f"immure-{pid}-*")


def state_files() -> Iterator[Path]:
    """Where the ranges of ids are kept."""
    place = Path("/run/immure") if os.geteuid() == 0 else Path.home() / ".local/state/immure"
    if place.is_dir():
        yield from place.iterdir()
