"""A machine's memory as a file of this host's memory: what a copy of the machine goes on from.

Source: memfd_create(2), fcntl(2) on seals, and lseek(2) on holes: what a machine has never written takes no room.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterator
from hashlib import blake2b

_SIZE_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_ALL_SEALS = _SIZE_SEALS | fcntl.F_SEAL_WRITE
#: _IOW(0x94, 9, int): ioctl_ficlone(2).
_FICLONE = 0x4004_9409
#: What a checksum is made of: all of these that are not zeroes, wherever a file system sees holes.
_PIECE_BYTES = 64 * 1024


def make_memory(size: int, *, bounded: bool = False) -> int:
    """A descriptor of one that is all zeroes, and has nothing yet; where it is `bounded`, of that size for good."""
    fd = os.memfd_create("immure-machine", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        if bounded:
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def sealed_copy(source: int) -> int:
    """A copy that nobody can change any more, whoever has it open; it can still be mapped privately."""
    return _sealed(os.fstat(source).st_size, lambda fd: copy_parts(source, fd))


def sealed_pieces(source: int) -> int:
    """The same of a file to which zeroes were written too: those take no room in the copy."""
    return _sealed(os.fstat(source).st_size, lambda fd: copy_pieces(source, fd))


def sealed_bytes(content: bytes) -> int:
    """The same with this content."""
    return _sealed(len(content), lambda fd: _write_at(fd, content, 0))


def fill_and_seal(source: int, fd: int) -> None:
    """Makes an empty one a sealed copy. Raises OSError."""
    copy_parts(source, fd)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _ALL_SEALS)


def _sealed(size: int, fill: Callable[[int], None]) -> int:
    fd = make_memory(size)
    try:
        fill(fd)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


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


def copy_content(source: int, target: int) -> None:
    """As `copy_parts`; on a file system where two files can share what they have in common, they do. Raises OSError."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        copy_parts(source, target)


def copy_pieces(source: int, target: int) -> None:
    """As `copy_parts`, without what is nothing but zeroes."""
    for offset, piece in _pieces(source):
        _write_at(target, piece, offset)


def digest_of(source: int) -> str:
    """A checksum of what stands in a file, and where."""
    digest = blake2b(str(os.fstat(source).st_size).encode())
    for offset, piece in _pieces(source):
        digest.update(offset.to_bytes(8, "little") + piece)
    return digest.hexdigest()


def empty_memory(fd: int) -> None:
    """Makes all of it zeroes again, which take no room. madvise(2)."""
    with mmap.mmap(fd, os.fstat(fd).st_size) as memory:
        memory.madvise(mmap.MADV_REMOVE)


def _pieces(source: int) -> Iterator[tuple[int, bytes]]:
    """What is not zeroes, and where: the same wherever a file system sees holes."""
    end = 0
    with contextlib.suppress(EOFError):
        while True:
            begin, end = _next_part(source, end)
            begin -= begin % _PIECE_BYTES
            while begin < end:
                piece = os.pread(source, _PIECE_BYTES, begin)
                if piece.count(0) != len(piece):
                    yield begin, piece
                begin += _PIECE_BYTES
            end = begin


def _write_at(target: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(target, view, offset)
        view, offset = view[count:], offset + count


def _next_part(source: int, after: int) -> tuple[int, int]:
    """Begin and end of the next part that is no hole. Raises EOFError where there is none."""
    try:
        begin = os.lseek(source, after, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise EOFError from error
        raise
    return begin, os.lseek(source, begin, os.SEEK_HOLE)
