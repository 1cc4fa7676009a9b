"""Folders out of a box as streams of tar: what comes is hostile, and is written as it comes."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from immure.engine.packing import MOST_DEPTH
from immure.errors import FileError

_CHUNK = 256 * 1024
#: An archive ends with two blocks of zeros, of which its reader may leave the second in the stream.
_END_BYTES = 512
_NAME_BYTES, _LONG_NAME_BYTES = 255, 8192
#: Names and targets of links are kept until the end: as many bytes for each entry that is allowed, and some more.
_NAME_ROOM, _MORE_ROOM = 256, 1 << 20
#: A name that this file system does not take. Anything else is the host's own trouble.
_NO_NAMES = frozenset((errno.ENAMETOOLONG, errno.EEXIST, errno.EINVAL, errno.EILSEQ))


def beside(target: Path) -> Path:
    """A name in the folder of `target` for what is not whole yet."""
    return target.with_name(f".immure-{secrets.token_hex(4)}-{target.name}"[:_NAME_BYTES])


def unpack_folder(
    stream: IO[bytes],
    target: str | os.PathLike[str],
    max_bytes: int,
    max_entries: int,
    end: Callable[[], None],
) -> None:
    """Reads what a box sent into a new folder `target`: all of it, or nothing. `end` is called when it is all there.

    Raises FileError for a name that leads out or comes twice, a link that leads out, anything that is neither file,
    folder nor link, and more than the limits.
    """
    whole = Path(target).absolute()
    # A folder of ours alone, so that nobody changes it meanwhile; links come last, so that none is ever followed.
    temporary = beside(whole)
    temporary.mkdir(0o700)
    try:
        _Unpacking(temporary, max_bytes, max_entries).run(stream)
        end()
        temporary.chmod(0o755)
        temporary.rename(whole)
    except (tarfile.TarError, RecursionError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        end()
        raise FileError("the box sent no archive", path=whole.name, have=str(error)) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


class _Member(tarfile.TarInfo):
    """A header of the few kinds that a box's own packer writes: others make the reader keep what they say in memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> tarfile.TarInfo:
        """Raises FileError for another kind."""
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            # It would add to the room for the others.
            raise _refused(member, "a size from 0 on", f"{member.size}")
        if member.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            if member.size > _LONG_NAME_BYTES:
                raise _refused(member, f"a name of at most {_LONG_NAME_BYTES} bytes", f"{member.size}")
        elif member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
            raise _refused(member, "a file, a folder or a symbolic link", f"a member of type {member.type!r}")
        return member


class _Unpacking:
    def __init__(self, root: Path, max_bytes: int, max_entries: int) -> None:
        self._root = root
        self._max_bytes = self._bytes_left = max_bytes
        self._max_entries = self._entries_left = max_entries
        #: Names below the root, and targets.
        self._links: list[tuple[str, str]] = []
        self._room = self._room_left = _NAME_ROOM * max_entries + _MORE_ROOM
        self._modes: list[tuple[str, int]] = []
        self._folders: set[str] = {""}
        self._others: set[str] = set()

    def run(self, stream: IO[bytes]) -> None:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK, errorlevel=2, tarinfo=_Member) as archive:
            for member in archive:
                with _names_that_there_can_be(member.name):
                    self._take(archive, member)
                # The reader would keep every header.
                archive.members = []  # type: ignore[attr-defined]
        stream.read(_END_BYTES)
        for name, target in self._links:
            with _names_that_there_can_be(name):
                (self._root / name).symlink_to(target)
        for name, mode in reversed(self._modes):
            (self._root / name).chmod(mode)

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._entries_left -= 1
        if self._entries_left < 0:
            raise _refused(member, f"at most {self._max_entries} entries", "more")
        self._room_left -= len(member.name) + len(member.linkname)
        if self._room_left < 0:
            raise _refused(member, f"at most {self._room} bytes of names", "more")
        name = self._name(member)
        path = self._root / name
        if member.isdir():
            self._folders.add(name)
            path.mkdir(0o700)
            self._modes.append((name, 0o700 | member.mode & 0o777))
            return
        self._others.add(name)
        if member.issym():
            _check_link(member, name)
            self._links.append((name, member.linkname))
        else:
            self._copy(archive, member, path)

    def _name(self, member: tarfile.TarInfo) -> str:
        name = member.name.rstrip("/")
        parts = name.split("/")
        if not all(parts) or any(part in (".", "..") or "\0" in part for part in parts):
            raise _refused(member, "a relative name without . and ..", "another")
        if len(parts) > MOST_DEPTH:
            # Removing what is not whole goes down one call for each.
            raise _refused(member, f"at most {MOST_DEPTH} folders deep", f"{len(parts)}")
        if name in self._folders or name in self._others:
            raise _refused(member, "a name that is free", "one that was there before")
        if "/".join(parts[:-1]) not in self._folders:
            raise _refused(member, "a folder that it is in", "none that came before")
        return name

    def _copy(self, archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
        self._bytes_left -= member.size
        if self._bytes_left < 0:
            raise _refused(member, f"at most {self._max_bytes} bytes in all", "more")
        source = archive.extractfile(member)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
        path.chmod(member.mode & 0o777 | 0o400)


@contextmanager
def _names_that_there_can_be(name: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_NAMES:
            raise
        raise _refusal(name, "a name that this file system takes", error.strerror or "another") from error


def _check_link(member: tarfile.TarInfo, name: str) -> None:
    """A link leads up first, by folders that are none, and then down: so no chain of links leads out."""
    depth, down = name.count("/"), False
    for part in member.linkname.split("/"):
        if part == "..":
            depth -= 1
        elif part not in ("", "."):
            down = True
        if depth < 0 or (down and part == ".."):
            raise _refused(member, "a link within the folder", f"one to {member.linkname!r}")
    if member.linkname.startswith("/") or not member.linkname:
        raise _refused(member, "a link within the folder", f"one to {member.linkname!r}")


def _refused(member: tarfile.TarInfo, need: str, have: str) -> FileError:
    return _refusal(member.name, need, have)


def _refusal(name: str, need: str, have: str) -> FileError:
    shown = name if len(name) <= _NAME_BYTES else f"{name[:_NAME_BYTES]}…"
    return FileError(f"{shown!r} of the box was refused", path=name, need=need, have=have)
