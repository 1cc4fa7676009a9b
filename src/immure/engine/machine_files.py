"""A machine's copy in the folder of a snapshot: two files, or three where it has a disk, with a checksum of all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from immure.errors import RuntimeUnavailable
from immure.plan.launch import Launch
from immure.runtimes.guest.disk import copied_disk
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.guest.memory import copy_content, digest_of, sealed_copy

STATE, MEMORY, DISK = "state", "memory", "disk"
#: Of a state, beside the machine's memory: devices, and headers of pages.
_MOST_BESIDE_BYTES = 64 << 20


def write_machine(folder: Path, copy: MachineCopy) -> str:
    """Writes it to a private folder, and gives the checksum. Raises OSError."""
    for name, source in ((STATE, copy.state), (MEMORY, copy.memory), (DISK, copy.disk)):
        if source is None:
            continue
        with (folder / name).open("xb", buffering=0) as file:
            os.ftruncate(file.fileno(), os.fstat(source).st_size)
            copy_content(source, file.fileno())
            os.fsync(file.fileno())
    return _checksum(copy)


def read_machine(folder: Path, checksum: str, memory_bytes: int, launch: Launch) -> MachineCopy:
    """Reads what was written, into this host's memory, and where it had a disk into another one.

    Raises OSError, SetupFailed where there is no room for that, and RuntimeUnavailable where it was changed.
    """
    copy = MachineCopy(-1, None)
    try:
        copy.state = _read(folder / STATE, memory_bytes + _MOST_BESIDE_BYTES)
        with contextlib.suppress(FileNotFoundError):
            copy.memory = _read(folder / MEMORY, memory_bytes)
        if launch.disk is not None:
            with _opened(folder / DISK, launch.disk[0]) as file:
                copy.disk = copied_disk(file, launch)
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
    with _opened(path, most) as file:
        return sealed_copy(file)


@contextmanager
def _opened(path: Path, most: int) -> Generator[int]:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode) or found.st_size > most:
            raise OSError(0, f"no file of at most {most} bytes", str(path))
        yield file
    finally:
        os.close(file)


def _checksum(copy: MachineCopy) -> str:
    parts = [digest_of(fd) for fd in (copy.state, copy.memory, copy.disk) if fd is not None]
    return blake2b(" ".join(parts).encode()).hexdigest()
