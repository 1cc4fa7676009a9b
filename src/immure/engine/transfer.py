"""Moving what files hold between the host and an operation in a box."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from immure.engine.folders import beside
from immure.engine.process import Process
from immure.errors import FileError, ImmureError

_CHUNK = 256 * 1024
#: As large as a pipe may be made without privileges. pipe(7).
_PIPE_BYTES = 1 << 20
_GRACE_S = 1.0


def regular(file: BinaryIO) -> int | None:
    """The descriptor of a regular file that is opened for reading alone, which a box may have as it is."""
    # Not what only looks like one: a BufferedReader may stand on what decompresses.
    raw = file.raw if type(file) is io.BufferedReader else file
    if type(raw) is not io.FileIO:
        return None
    try:
        fd = raw.fileno()
        os.lseek(fd, file.tell(), os.SEEK_SET)
        only_reads = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        return fd if only_reads and stat.S_ISREG(os.fstat(fd).st_mode) else None
    except (OSError, ValueError):
        return None


def feed(process: Process, source: BinaryIO) -> None:
    """Gives an operation all that a file has, in chunks whose end is told: where we are lost, that is not the end."""
    try:
        while chunk := _next(source):
            if not _sent(process, len(chunk).to_bytes(4, "little"), chunk):
                return
        _sent(process, bytes(4))
    except BaseException:
        _let_end(process)
        raise


def _next(source: BinaryIO) -> bytes:
    # Of one that does not wait, None is not the end.
    chunk = cast("bytes | None", source.read(_CHUNK))
    if chunk is None:
        raise BlockingIOError(errno.EAGAIN, "the file to write has nothing to give now")
    return chunk


def _sent(process: Process, *parts: bytes) -> bool:
    """False where the operation has ended; it says why."""
    assert process.stdin is not None
    try:
        for part in parts:
            view = memoryview(part)
            while view:
                view = view[process.stdin.write(view) :]
    except BrokenPipeError:
        return False
    return True


def _let_end(process: Process) -> None:
    """Has an operation that was sent too little take away what it has made."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_GRACE_S)
    except (TimeoutError, ImmureError):
        # Its end is not waited for any longer, or can't be.
        pass


def pour(process: Process, path: str, target: BinaryIO, max_bytes: int | None) -> int:
    """Writes what an operation sends into an open file, and says how much that was."""
    total = 0
    while chunk := process.stdout.read1(_CHUNK):
        total += len(chunk)
        if max_bytes is not None and total > max_bytes:
            raise too_long(path, max_bytes)
        view = memoryview(chunk)
        while view:
            view = view[target.write(view) :]
    return total


def too_long(path: str, max_bytes: int) -> FileError:
    """More came than was wanted."""
    return FileError("the file is longer than wanted", path=path, errno=27, need=f"at most {max_bytes} bytes")


def save(process: Process, target: str | os.PathLike[str], mode: int, max_bytes: int, end: Callable[[], None]) -> None:
    """One file, whole or not at all."""
    whole = Path(target).absolute()
    temporary = beside(whole)
    try:
        with temporary.open("xb", buffering=0) as file:
            left = max_bytes
            for count in _moved(process, file.fileno()):
                left -= count
                if left < 0:
                    raise too_long(whole.name, max_bytes)
            os.fchmod(file.fileno(), mode)
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
