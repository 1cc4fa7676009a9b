"""What the machine has: disks, terminals, control groups."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from security.scenes import Stage, scene


@scene
def disk(stage: Stage) -> Iterator[None]:
    """A block device of the host's, one that root may open where this runs as root."""
    disks = [path for path in sorted(Path("/dev").iterdir()) if path.is_block_device()]
    found = next(path for path in disks if os.geteuid() != 0 or _opens(path))
    stage.give(disk=str(found), number=found.stat().st_rdev)
    yield


def _opens(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return False
    return True


@scene
def control_group(stage: Stage) -> Iterator[None]:
    """A folder in which the host could make a control group."""
    root = Path("/sys/fs/cgroup")
    found = next(path for path in (root, *sorted(root.iterdir())) if (path / "cgroup.procs").exists())
    stage.give(group=str(found))
    yield


@scene
def host_name(stage: Stage) -> Iterator[None]:
    stage.give(name=os.uname().nodename)
    yield


@scene
def host_terminal(stage: Stage) -> Iterator[None]:
    main, terminal = os.openpty()
    stage.give(terminal=os.ttyname(terminal))
    try:
        yield
    finally:
        os.close(main)
        os.close(terminal)


@scene
def stdin_terminal(stage: Stage) -> Iterator[None]:
    main, terminal = os.openpty()
    stage.stdin = terminal
    try:
        yield
    finally:
        os.close(main)
        os.close(terminal)
