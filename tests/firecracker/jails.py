"""Jailed machines for tests, and what of them could be left on this host."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from immure.host.cgroups import find_parents
from immure.runtimes.firecracker.claims import FIRST_UID, UIDS, _lock_id, processes, runs_as
from immure.runtimes.firecracker.jailer import Jailed
from immure.runtimes.firecracker.models import BootSource, MachineConfiguration
from immure.runtimes.firecracker.programs import Programs

from .guests import HELLO
from .vmms import SOON_S


def programs(place: Path) -> Programs:
    return Programs(str(place / "firecracker"), str(place / "jailer"))


def start(jailed: Jailed, kernel: Path, *, says: bytes = HELLO) -> None:
    jailed.client.set_machine(MachineConfiguration(1, 32, track_dirty_pages=True))
    jailed.client.set_boot_source(BootSource(jailed.bring(str(kernel), "kernel")))
    jailed.client.start()
    assert jailed.console.wait_for(says, SOON_S), jailed.console.read()


def _cgroups() -> set[Path]:
    return {path for parent in find_parents().parents for path in Path(parent.path).glob("vmm-immure-*")}


def _taps() -> set[Path]:
    return set(Path("/sys/class/net").glob("ivm*"))


_BEFORE = _cgroups() | _taps()


def left(vmms: Path) -> list[str]:
    """What there is of machines whose place this is, and cgroups and TAP devices whose user nobody has."""
    folders = [str(path) for path in vmms.iterdir() if path.name != "lock"] if vmms.exists() else []
    users = {path: int(path.name.rpartition("-")[2]) for path in _cgroups() - _BEFORE}
    users |= {path: FIRST_UID + int(path.name[3:].partition("n")[0]) for path in _taps() - _BEFORE}
    return folders + [str(path) for path, uid in users.items() if _is_nobodys(uid)]


def _is_nobodys(uid: int) -> bool:
    lock = _lock_id(uid)
    if lock is not None:
        os.close(lock)
    return lock is not None


def running(uid: int) -> list[int]:
    assert FIRST_UID <= uid < FIRST_UID + UIDS
    return [pid for pid in processes() if runs_as(pid, uid)]


def owner(place: Path, vmms: Path, code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process of ours that has a jailed machine: `jailed`. Its output is read line by line."""
    script = f"""
        import sys, time
        from pathlib import Path
        from firecracker.jails import Jailed, programs, start
        print("begins", flush=True)
        jailed = Jailed(programs(Path({str(place)!r})), {str(vmms)!r}, "vm")
        print(jailed.uid, jailed.pid, flush=True)
    """
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script) + textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
