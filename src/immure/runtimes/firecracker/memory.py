"""Memory of machines as files: of a size that nobody can change, and without what is nothing but zeroes.

Source: memfd_create(2), fcntl(2) on seals, madvise(2).
"""

from __future__ import annotations

import fcntl
import mmap
import os

_SIZE_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_ALL_SEALS = _SIZE_SEALS | fcntl.F_SEAL_WRITE
#: Zeroes are looked for in steps of so much.
_STEP_BYTES = 64 * 1024


def bounded_memory(name: str, size: int) -> int:
    """A file in memory that is so long, and can't be made longer or shorter. It takes what is written to it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_memory(name: str, content: bytes | None = None, *, of: int = -1) -> int:
    """A file in memory that nobody can change any more: with some content, or with that of another file."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if content is not None:
            os.write(fd, content)
        else:
            copy_memory(of, fd)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def copy_memory(source: int, target: int) -> None:
    """Makes an empty file the same as another. Zeroes take no room there. Raises OSError."""
    size = os.fstat(source).st_size
    with mmap.mmap(source, size, prot=mmap.PROT_READ) as memory:
        for offset in range(0, size, _STEP_BYTES):
            step = memory[offset : offset + _STEP_BYTES]
            if step.count(0) != len(step):
                _write_at(target, step, offset)
    os.ftruncate(target, size)


def _write_at(target: int, step: bytes, offset: int) -> None:
    view = memoryview(step)
    while view:
        count = os.pwrite(target, view, offset)
        view, offset = view[count:], offset + count


def empty_memory(fd: int) -> None:
    """Makes all of it zeroes again, which take no room."""
    with mmap.mmap(fd, os.fstat(fd).st_size) as memory:
        memory.madvise(mmap.MADV_REMOVE)
