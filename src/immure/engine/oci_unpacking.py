"""Puts an image's layers on top of each other. A program of its own: it runs in a box, with the standard library alone.

Its argument is JSON: `layers` as `formats.oci_layout` has them, `blobs` where they are, `target` the new root, and the
bounds `most_bytes` and `most_entries`. What it has to say goes to standard error, in one line.

Sources: the OCI's image-spec 1.1, layer.md; tar as tarfile reads it. A layer is hostile. No link is ever followed by
the kernel: where a folder on the way to an entry is a link, it leads where it would lead in a box whose root this is.
"""

# There are many paths, and plain ones are quicker.
# ruff: noqa: PTH101, PTH102, PTH108, PTH114, PTH115, PTH118, PTH123, PTH208, PTH211

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, Any

_CHUNK = 1 << 20
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MOST_LINKS, _MOST_DEPTH, _PATH_BYTES = 40, 256, 4096
#: What its owner can't read or enter could not be packed or removed.
_FILE_MODE, _FOLDER_MODE = 0o400, 0o700
_DEVICES = (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)


class Refused(Exception):
    """A layer that is not what it should be."""


class Hashed(io.RawIOBase):
    """A stream that knows the digest of what was read of it."""

    def __init__(self, stream: IO[bytes], digest: str) -> None:
        self._stream = stream
        algorithm, _, self._wanted = digest.partition(":")
        self._hash = hashlib.new(algorithm)
        self.count = 0

    def readable(self) -> bool:
        """As io has it."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As io has it."""
        data = self._stream.read(len(buffer))
        self._hash.update(data)
        self.count += len(data)
        buffer[: len(data)] = data
        return len(data)

    def check(self, what: str) -> None:
        """Reads to the end, and raises Refused for another content."""
        while self.read(_CHUNK):
            pass
        if self._hash.hexdigest() != self._wanted:
            raise Refused(f"{what} is not what its digest says")


class Root:
    """A root that grows by layers."""

    def __init__(self, top: str, most_bytes: int, most_entries: int) -> None:
        self.top = top
        self.bytes_left, self.entries_left = most_bytes, most_entries
        #: What the layer that is put on it has made, by path: its whiteouts are not for that.
        self._fresh: set[str] = set()
        #: Folders get their times and modes when nothing is made in them any more.
        self._folders: dict[str, tuple[int, int]] = {}

    def put(self, layer: tarfile.TarFile) -> None:
        """One more layer."""
        self._fresh = set()
        while (member := layer.next()) is not None:
            # All that it has read it keeps.
            vars(layer)["members"] = []
            self.entries_left -= 1
            if self.entries_left < 0:
                raise Refused("it has more entries than are allowed")
            self._entry(layer, member)

    def settle(self) -> None:
        """No more layers come."""
        for path, (mode, mtime) in sorted(self._folders.items(), reverse=True):
            os.chmod(path, mode)
            os.utime(path, (mtime, mtime))

    def _entry(self, layer: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = _parts(member.name)
        if not parts:
            return
        above, name = self._folder(parts[:-1]), parts[-1]
        path = os.path.join(above, name)
        if name == _OPAQUE:
            self._make_opaque(above)
        elif name.startswith(_WHITEOUT):
            self._take_away(os.path.join(above, _checked(name[len(_WHITEOUT) :], member.name)))
        elif member.type in _DEVICES:
            # Every box has devices of its own.
            if parts[0] != "dev":
                raise Refused(f"{member.name!r} is a device or pipe")
        else:
            self._make(layer, member, path)

    def _make(self, layer: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        mode, mtime = member.mode & 0o777, max(0, min(int(member.mtime), 1 << 40))
        if member.isdir():
            if not _is_folder(path):
                self._clear(path)
                os.mkdir(path, 0o700)
            self._folders[path] = (mode | _FOLDER_MODE, mtime)
        elif member.issym():
            self._clear(path)
            os.symlink(member.linkname, path)
        elif member.islnk():
            self._link(member, path)
        elif member.isreg():
            self._clear(path)
            self._write(layer, member, path)
            os.chmod(path, mode | _FILE_MODE)
            os.utime(path, (mtime, mtime))
        else:
            raise Refused(f"{member.name!r} is of an unknown kind")
        self._fresh.add(path)

    def _write(self, layer: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
        self.bytes_left -= member.size
        if self.bytes_left < 0:
            raise Refused("it is larger than is allowed")
        content = layer.extractfile(member)
        assert content is not None
        with open(path, "xb") as file:
            shutil.copyfileobj(content, file, _CHUNK)
            if file.tell() != member.size:
                raise Refused(f"{member.name!r} is cut short")

    def _link(self, member: tarfile.TarInfo, path: str) -> None:
        parts = _parts(member.linkname)
        if not parts:
            raise Refused(f"{member.name!r} is a link to the root")
        first = os.path.join(self._folder(parts[:-1]), parts[-1])
        seen = os.lstat(first) if os.path.lexists(first) else None
        if seen is None or stat.S_ISDIR(seen.st_mode):
            raise Refused(f"{member.name!r} is a link to {member.linkname!r}, which is no file")
        if first != path:
            self._clear(path)
            os.link(first, path, follow_symlinks=False)

    def _folder(self, parts: list[str]) -> str:
        """The folder of this path, made where it is missing; links lead where they do in the new root."""
        left, at, links = list(reversed(parts)), [self.top], 0
        while left:
            part = left.pop()
            if part == "..":
                # Of a link. Above the root there is nothing.
                if len(at) > 1:
                    at.pop()
                continue
            path = "/".join((*at, part))
            try:
                mode = os.lstat(path).st_mode
            except FileNotFoundError:
                os.mkdir(path, 0o755)
                self._fresh.add(path)
                mode = stat.S_IFDIR
            if stat.S_ISLNK(mode):
                links += 1
                target = os.readlink(path)
                if links > _MOST_LINKS:
                    raise Refused(f"{'/'.join(parts)!r} leads through too many links")
                if target.startswith("/"):
                    del at[1:]
                left += [one for one in reversed(target.split("/")) if one not in ("", ".")]
            elif stat.S_ISDIR(mode):
                at.append(part)
            else:
                raise Refused(f"{'/'.join(parts)!r} leads through a file")
            if len(at) > _MOST_DEPTH:
                raise Refused(f"{'/'.join(parts)!r} is too deep")
        return "/".join(at)

    def _clear(self, path: str) -> None:
        if not os.path.lexists(path):
            return
        if _is_folder(path):
            self._forget(path)
            _open_up(path)
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def _take_away(self, path: str) -> None:
        """What lower layers have there."""
        if _is_folder(path) and self._holds_fresh(path):
            self._make_opaque(path)
        elif path not in self._fresh:
            self._clear(path)

    def _make_opaque(self, folder: str) -> None:
        for name in os.listdir(folder):
            self._take_away(os.path.join(folder, name))

    def _holds_fresh(self, path: str) -> bool:
        return path in self._fresh or any(one.startswith(f"{path}/") for one in self._fresh)

    def _forget(self, path: str) -> None:
        below = f"{path}/"
        self._folders = {one: told for one, told in self._folders.items() if one != path and not one.startswith(below)}


def _parts(name: str) -> list[str]:
    """The path of an entry below the root."""
    if len(os.fsencode(name)) > _PATH_BYTES or "\0" in name:
        raise Refused("a path is too long, or no path")
    return [_checked(part, name) for part in name.split("/") if part not in ("", ".")]


def _checked(part: str, name: str) -> str:
    if part in ("", ".", ".."):
        raise Refused(f"{name!r} leads out of the root")
    return part


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _open_up(path: str) -> None:
    """So that what is in it can be removed."""
    os.chmod(path, 0o700)
    for above, folders, _ in os.walk(path):
        for name in folders:
            if not os.path.islink(os.path.join(above, name)):
                os.chmod(os.path.join(above, name), 0o700)


@contextmanager
def _plain(stream: IO[bytes], compression: str) -> Generator[IO[bytes]]:
    if compression == "gzip":
        with gzip.GzipFile(fileobj=stream) as plain:
            yield plain  # type: ignore[misc]
    elif compression == "zstd":
        with _zstd(stream) as plain:
            yield plain
    else:
        yield stream


@contextmanager
def _zstd(stream: IO[bytes]) -> Generator[IO[bytes]]:
    """By the program, which reads the file itself: Python has none before 3.14."""
    program = shutil.which("zstd")
    if program is None:
        raise Refused("it is compressed by zstd, and there is no program of that name below /usr")
    with subprocess.Popen([program, "-dcq", "--no-check"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        yield _fed(running, stream)


def _fed(running: subprocess.Popen[bytes], stream: IO[bytes]) -> IO[bytes]:
    import threading

    assert running.stdin is not None
    assert running.stdout is not None
    feeding = threading.Thread(target=_feed, args=(stream, running.stdin), daemon=True)
    feeding.start()
    return running.stdout


def _feed(stream: IO[bytes], to: IO[bytes]) -> None:
    try:
        shutil.copyfileobj(stream, to, _CHUNK)
        to.close()
    except OSError:
        # Its reader has had enough.
        pass


def _put(root: Root, layer: dict[str, Any], blobs: str) -> None:
    algorithm, _, name = layer["digest"].partition(":")
    with open(os.path.join(blobs, algorithm, name), "rb") as file:
        whole = Hashed(file, layer["digest"])
        with _plain(io.BufferedReader(whole, _CHUNK), layer["compression"]) as stream:
            content = Hashed(stream, layer["content"])
            with tarfile.open(fileobj=io.BufferedReader(content, _CHUNK), mode="r|", errorlevel=2) as archive:
                root.put(archive)
            content.check("its content")
        whole.check("the blob")
        if whole.count != layer["size"]:
            raise Refused("the blob has another size than is told")


def main(told: str) -> None:
    """Carries a task out."""
    task = json.loads(told)
    root = Root(task["target"], task["most_bytes"], task["most_entries"])
    os.umask(0o022)
    for layer in task["layers"]:
        try:
            _put(root, layer, task["blobs"])
        except (Refused, tarfile.TarError, EOFError, zlib.error, ValueError, OSError) as error:
            print(f"layer {layer['digest']}: {error}", file=sys.stderr)
            sys.exit(1)
    root.settle()


if __name__ == "__main__":
    main(sys.argv[1])
