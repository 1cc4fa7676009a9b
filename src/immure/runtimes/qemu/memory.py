"""A machine's memory as a file of this host's memory: what a copy of the machine goes on from.

Source: memfd_create(2), fcntl(2) on seals, and lseek(2) on holes: what a machine has never written takes no room.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from hashlib import blake2b

_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: What a checksum is made of: all of these that are not zeroes, wherever a file system sees holes.
_PIECE_BYTES = 64 * 1024


def make_memory(size: int) -> int:
    """A descriptor of one that is all zeroes, and has nothing yet."""
    fd = os.memfd_create("immure-machine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_copy(source: int) -> int:
    """A copy that nobody can change any more, whoever has it open; it can still be mapped privately."""
    fd = make_memory(os.fstat(source).st_size)
    try:
        fill_and_seal(source, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def fill_and_seal(source: int, fd: int) -> None:
    """The same for one that was made before."""
    copy_parts(source, fd)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)


def copy_parts(source: int, target: int) -> None:
    """Copies what stands in a file to the same places of another one, which has zeroes there. Raises OSError."""
    with contextlib.suppress(EOFError):
        end = 0
        while True:
            begin, end = _next_part(source, end)
            os.lseek(target, begin, os.SEEK_SET)
            while begin < end:
                count = os.sendfile(target, source, begin, end - begin)
                if count == 0:
                    raise OSError(errno.EIO, "the file ends before its size")
                begin += count


def digest_of(source: int) -> str:
    """A checksum of what stands in a file, and where."""
    digest = blake2b(str(os.fstat(source).st_size).encode())
    with contextlib.suppress(EOFError):
        end = 0
        while True:
            begin, end = _next_part(source, end)
            begin -= begin % _PIECE_BYTES
            while begin < end:
                piece = os.pread(source, _PIECE_BYTES, begin)
                if piece.count(0) != len(piece):
                    digest.update(begin.to_bytes(8, "little") + piece)
                begin += _PIECE_BYTES
            end = begin
    return digest.hexdigest()


def _next_part(source: int, after: int) -> tuple[int, int]:
    """Begin and end of the next part that is no hole. Raises EOFError where there is none."""
    try:
        begin = os.lseek(source, after, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise EOFError from error
        raise
    return begin, os.lseek(source, begin, os.SEEK_HOLE)
