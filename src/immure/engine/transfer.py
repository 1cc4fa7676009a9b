"""Moving what files hold between the host and an operation in a box."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from immure.engine.folders import beside
from immure.engine.process import Process
from immure.errors import FileError

_CHUNK = 256 * 1024
#: As large as a pipe may be made without privileges. pipe(7).
_PIPE_BYTES = 1 << 20


def regular(file: BinaryIO) -> int | None:
    """The descriptor of a regular file that is opened for reading alone, which a box may have as it is."""
    try:
        fd = file.fileno()
        if not isinstance(file, io.FileIO | io.BufferedReader):
            return None
        os.lseek(fd, file.tell(), os.SEEK_SET)
        only_reads = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        return fd if only_reads and stat.S_ISREG(os.fstat(fd).st_mode) else None
    except (OSError, ValueError, AttributeError):
        return None


def feed(process: Process, source: BinaryIO) -> None:
    """Gives an operation all that a file has, and ends its input."""
    assert process.stdin is not None
    try:
        while chunk := source.read(_CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[process.stdin.write(view) :]
    except BrokenPipeError:
        # The operation has ended; it says why.
        pass
    process.stdin.close()


def save(process: Process, target: str | os.PathLike[str], max_bytes: int, end: Callable[[], None]) -> None:
    """One file, whole or not at all."""
    whole = Path(target).absolute()
    temporary = beside(whole)
    try:
        with temporary.open("xb", buffering=0) as file:
            left = max_bytes
            for count in _moved(process, file.fileno()):
                left -= count
                if left < 0:
                    raise FileError(
                        "the file is longer than wanted", path=whole.name, errno=27, need=f"at most {max_bytes} bytes"
                    )
        end()
        temporary.rename(whole)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _moved(process: Process, target: int) -> Iterator[int]:
    """Moves what an operation sends into a file, and says how much came each time."""
    source = process.stdout.fileno()
    try:
        fcntl.fcntl(source, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        # This user has as much of pipes as it may.
        pass
    while count := move(source, target):
        yield count


def move(source: int, target: int) -> int:
    """splice(2), by which nothing is copied here; not every file system can do that."""
    try:
        return os.splice(source, target, _PIPE_BYTES)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    view = memoryview(os.read(source, _CHUNK))
    count = len(view)
    while view:
        view = view[os.write(target, view) :]
    return count
