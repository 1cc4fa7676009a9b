"""A machine's copy in the folder of a snapshot: two files, with a checksum of both."""

from __future__ import annotations

import contextlib
import os
import stat
from hashlib import blake2b
from pathlib import Path

from immure.errors import RuntimeUnavailable
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.memory import copy_parts, digest_of, sealed_copy

STATE, MEMORY = "state", "memory"
#: Of a state, beside the machine's memory: devices, and headers of pages.
_MOST_BESIDE_BYTES = 64 << 20


def write_machine(folder: Path, copy: MachineCopy) -> str:
    """Writes it to a private folder, and gives the checksum. Raises OSError."""
    for name, source in ((STATE, copy.state), (MEMORY, copy.memory)):
        if source is None:
            continue
        with (folder / name).open("xb", buffering=0) as file:
            copy_parts(source, file.fileno())
            os.ftruncate(file.fileno(), os.fstat(source).st_size)
            os.fsync(file.fileno())
    return _checksum(copy)


def read_machine(folder: Path, checksum: str, memory_bytes: int) -> MachineCopy:
    """Reads what was written, into this host's memory. Raises OSError, and RuntimeUnavailable where it was changed."""
    copy = MachineCopy(-1, None)
    try:
        copy.state = _read(folder / STATE, memory_bytes + _MOST_BESIDE_BYTES)
        with contextlib.suppress(FileNotFoundError):
            copy.memory = _read(folder / MEMORY, memory_bytes)
        if _checksum(copy) != checksum:
            raise RuntimeUnavailable(
                f"the snapshot in {folder} is damaged",
                need="the files that were saved",
                have="others: their checksum is another one",
                hint="make another one from a new box",
            )
    except BaseException:
        copy.close()
        raise
    return copy


def _read(path: Path, most: int) -> int:
    """A sealed copy of a file. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise OSError(0, f"no file of at most {most} bytes", str(path))
        return sealed_copy(file)
    finally:
        os.close(file)


def _checksum(copy: MachineCopy) -> str:
    parts = [digest_of(fd) for fd in (copy.state, copy.memory) if fd is not None]
    return blake2b(" ".join(parts).encode()).hexdigest()
