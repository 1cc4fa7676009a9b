"""Standard descriptors of a command whose output is kept."""

from __future__ import annotations

import fcntl
import os

from immure.runtimes.process.attend import Sink, Stdio
from immure.runtimes.process.spawner import memory_file

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def captured(stdin: bytes | None) -> Stdio:
    """Output into pipes; input from a sealed file in memory, or nothing."""
    opened: list[int] = []
    try:
        readers: list[int] = []
        writers: list[int] = []
        for _ in range(2):
            reader, writer = os.pipe2(os.O_CLOEXEC)
            readers.append(reader)
            writers.append(writer)
        opened = [*readers, *writers]
        given = list(writers)
        first = _input(stdin) if stdin else None
        if first is not None:
            given.append(first)
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    return Stdio((first, writers[0], writers[1]), given, [Sink(fd, None) for fd in readers])


def _input(stdin: bytes) -> int:
    # Opened anew for reading: the box is to have no descriptor that it could write to.
    fd = memory_file(stdin, sealable=True)
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(fd)
