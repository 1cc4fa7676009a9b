"""Processes to reach for: the box's own first, in whose place the control has a victim, and the host's."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from security.scenes import Stage, scene

# It lets any process of its user trace it, also where Yama would not, and says which process it is to the host.
_VICTIM = """
import ctypes, os, signal
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)
print(os.readlink("/proc/self"), flush=True)
while True:
    signal.pause()
"""


@contextmanager
def _victim(marker: str, *wrapper: str) -> Iterator[int]:
    command = [*wrapper, "/usr/bin/python3", "-I", "-c", _VICTIM, marker]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        try:
            yield int(victim.stdout.readline())
        finally:
            victim.kill()


@scene
def init(stage: Stage) -> Iterator[None]:
    with _victim("in the place of init") as pid:
        stage.give_each("pid", inside=1, outside=pid)
        yield


@scene
def namespaced_process(stage: Stage) -> Iterator[None]:
    """Namespaces of an own make, whose parents the control can see; in the box, its own ones."""
    with _victim("in namespaces", "unshare", "--user", "--pid", "--fork", "--kill-child") as pid:
        stage.give_each("folder", inside="/proc/self/ns", outside=f"/proc/{pid}/ns")
        yield


@scene
def host_process(stage: Stage) -> Iterator[None]:
    marker = f"immure-{secrets.token_hex(8)}"
    with _victim(marker) as pid:
        stage.give(pid=pid, marker=marker)
        yield
