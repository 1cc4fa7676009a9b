"""Processes to reach for: the box's own first two, for which the control has a victim of the test's, and the host's."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from security.scenes import Stage, scene

# It lets any process of its user trace it, also where Yama would not.
_VICTIM = """
import ctypes, signal
ctypes.CDLL(None).prctl(0x59616d61, ctypes.c_ulong(-1), 0, 0, 0)
print("ready", flush=True)
while True:
    signal.pause()
"""


@contextmanager
def _victim(marker: str) -> Iterator[int]:
    command = ["/usr/bin/python3", "-I", "-c", _VICTIM, marker]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n"
        try:
            yield victim.pid
        finally:
            victim.kill()


@scene
def init(stage: Stage) -> Iterator[None]:
    with _victim("in the place of init") as pid:
        stage.give_each("pid", inside=1, outside=pid)
        yield


@scene
def stem(stage: Stage) -> Iterator[None]:
    with _victim("in the place of the stem") as pid:
        stage.give_each("pid", inside=2, outside=pid)
        yield


@scene
def host_process(stage: Stage) -> Iterator[None]:
    marker = f"immure-{secrets.token_hex(8)}"
    with _victim(marker) as pid:
        stage.give(pid=pid, marker=marker)
        yield
