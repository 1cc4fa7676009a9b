"""A folder of the host as a stream of tar, made as it is read."""

from __future__ import annotations

import errno
import os
import stat
import tarfile
from typing import IO

from immure.errors import SpecError

_CHUNK = 256 * 1024
_BLOCK = 512
#: As deep as what comes out of a box may be, and few enough for descriptors and calls.
MOST_DEPTH = 256
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def pack_folder(source: str | os.PathLike[str], stream: IO[bytes]) -> None:
    """Writes what is in a folder. Raises SpecError for what is neither file, folder nor link, or changes meanwhile.

    Somebody else may write to it, a box that has it mounted for one: no link is ever followed.
    """
    folder = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    packing = _Packing(stream)
    packing.folder(folder, "", 0)
    packing.write(bytes(2 * _BLOCK))


class _Packing:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        #: Where a file that has several names was first. All else is forgotten as soon as it is written.
        self._first: dict[tuple[int, int], str] = {}

    def write(self, data: bytes) -> None:
        """All of it: a pipe may take a part."""
        view = memoryview(data)
        while view:
            view = view[self._stream.write(view) :]

    def folder(self, folder: int, name: str, depth: int) -> None:
        """What is in an open folder, which is closed then."""
        try:
            if depth > MOST_DEPTH:
                raise _left_out(name, f"at most {MOST_DEPTH} folders in each other")
            for entry in sorted(os.listdir(folder)):
                self._entry(folder, entry, f"{name}{entry}", depth)
        finally:
            os.close(folder)

    def _entry(self, folder: int, entry: str, name: str, depth: int) -> None:
        found = os.stat(entry, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(found.st_mode):
            self._head(name, found, tarfile.SYMTYPE, link=os.readlink(entry, dir_fd=folder))
        elif stat.S_ISDIR(found.st_mode):
            below = _open(entry, folder, name, os.O_DIRECTORY)
            self._head(name, found, tarfile.DIRTYPE)
            self.folder(below, f"{name}/", depth + 1)
        elif stat.S_ISREG(found.st_mode):
            # What has taken its place meanwhile is not waited for.
            file = _open(entry, folder, name, os.O_NONBLOCK)
            try:
                self._file(file, name)
            finally:
                os.close(file)
        else:
            raise _left_out(name, "a file, a folder or a link")

    def _file(self, file: int, name: str) -> None:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _left_out(name, "a file, a folder or a link")
        first = self._first.get((found.st_dev, found.st_ino))
        if first is not None:
            self._head(name, found, tarfile.LNKTYPE, link=first)
            return
        if found.st_nlink > 1:
            self._first[found.st_dev, found.st_ino] = name
        self._head(name, found, tarfile.REGTYPE, size=found.st_size)
        left = found.st_size
        while left:
            chunk = os.read(file, min(left, _CHUNK))
            if not chunk:
                raise _left_out(name, "a file that does not become shorter while it is read")
            self.write(chunk)
            left -= len(chunk)
        self.write(bytes(-found.st_size % _BLOCK))

    def _head(self, name: str, found: os.stat_result, kind: bytes, *, size: int = 0, link: str = "") -> None:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, size, link
        # Owners and setuid bits stay behind.
        member.mode, member.mtime = found.st_mode & 0o777, max(0, int(found.st_mtime))
        self.write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))


def _open(entry: str, folder: int, name: str, flags: int) -> int:
    try:
        return os.open(entry, _OPEN | flags, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _left_out(name, "a file or folder that stays what it is") from error
        raise


def _left_out(name: str, need: str) -> SpecError:
    return SpecError("can't be taken along", path=name, need=need)
