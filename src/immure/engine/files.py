"""Files of a box. Each operation runs as a command does: in the box, as its user, under its walls."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from immure.engine.face import BoxFace
from immure.engine.file_models import MOST_OF_ENTRY, FileInfo, file_error, read_entries
from immure.engine.folders import unpack_folder
from immure.engine.packing import pack_folder
from immure.engine.process import Process
from immure.engine.result import Output
from immure.engine.stdio import PIPE, captured, streamed, with_input
from immure.engine.transfer import feed, pour, regular, save
from immure.engine.watching import Watch
from immure.errors import BoxLost, FileError, SpecError
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.faults import exec_failed
from immure.runtimes.process.request import Request

StrPath = str | os.PathLike[str]
#: What can be written: bytes, text, a binary file, or a file of the host by its path.
Content = bytes | bytearray | memoryview | str | BinaryIO | os.PathLike[str]
_MIB = 1 << 20
#: What `read` gives at most, unless it is asked for more.
READ_BYTES = 16 * _MIB
_LISTING_BYTES = 256 * _MIB
_CHUNK = 256 * 1024
_U64 = 2**64 - 1


class Files:
    """The files of one box. Paths are the box's; relative ones begin at its working directory.

    All methods raise FileError with the path and the kernel's errno where something can't be done, ExecFailed where the
    working directory is not there and a path begins at it, and BoxLost where the box is gone.
    """

    def __init__(self, face: BoxFace) -> None:
        self._face = face
        #: What is under way, for `abandon`.
        self._stop: Callable[[], None] | None = None
        self._abandoned = False
        self._stopping = threading.Lock()

    def abandon(self) -> None:
        """Ends the operation that another thread is in, and any after it. For one that is not waited for any more."""
        with self._stopping:
            self._abandoned = True
            if self._stop is not None:
                self._stop()

    def _under_way(self, stop: Callable[[], None] | None) -> None:
        with self._stopping:
            self._stop = stop
            if self._abandoned and stop is not None:
                stop()

    def read(self, path: StrPath, *, offset: int = 0, length: int | None = None) -> Output:
        """What a file holds, from `offset` bytes on. Without `length`, all of it: more than 16 MiB is an error then.

        Only regular files are read, wherever links of the box lead.
        """
        if offset < 0 or (length is not None and length < 0):
            raise SpecError("less than nothing", path="offset", need="0 or more", have=f"{offset}, {length}")
        wanted = READ_BYTES + 1 if length is None else length
        data = self._captured("read", path, str(offset), str(wanted), room=wanted)
        if len(data) > wanted:
            raise BoxLost("the box sent more than there was to send", need=f"{wanted} bytes", have=f"{len(data)}")
        if length is None and len(data) > READ_BYTES:
            raise FileError(
                f"{os.fspath(path)!r} is longer than {READ_BYTES} bytes",
                path=os.fspath(path),
                errno=27,
                need=f"at most {READ_BYTES} bytes",
                hint="read parts of it with offset and length, or use read_into or download",
            )
        return Output(data)

    def read_into(self, path: StrPath, file: BinaryIO, *, offset: int = 0, max_bytes: int | None = None) -> int:
        """Writes what a file holds, from `offset` bytes on, to an open binary file, and says how many bytes that were.

        There is no limit but `max_bytes`; where the file has more, that is an error, and what came until then is
        written. Memory stays small.
        """
        if offset < 0 or (max_bytes is not None and max_bytes < 0):
            raise SpecError("less than nothing", path="offset", need="0 or more", have=f"{offset}, {max_bytes}")
        wanted = _U64 if max_bytes is None else max_bytes + 1
        with self._started("read", path, str(offset), str(wanted)) as process:
            count = pour(process, os.fspath(path), file, max_bytes)
            self._end(process, "read", path)
        return count

    def write(
        self,
        path: StrPath,
        data: Content,
        *,
        mode: int = 0o644,
        append: bool = False,
        new: bool = False,
        parents: bool = False,
    ) -> None:
        """Writes a file: bytes, text as UTF-8, what an open binary file gives from where it stands, or a file of the
        host by its path (a Path: a str is text).

        What was there stays whole until all of the new is there, and keeps its mode; `mode` is that of a new one.
        `append` adds to its end, as it comes; `new` refuses one that is there; `parents` makes the folders above.
        """
        if isinstance(data, os.PathLike):
            with Path(data).open("rb") as file:
                return self.write(path, file, mode=mode, append=append, new=new, parents=parents)
        if not isinstance(data, bytes | bytearray | memoryview | str) and not hasattr(data, "read"):
            raise SpecError(
                "can't be written", path="data", need="bytes, str, a binary file or a Path", have=repr(data)
            )
        flags = ("a" if append else "") + ("n" if new else "") + ("p" if parents else "")
        operation = ("write", path, str(mode & 0o777), flags)
        if isinstance(data, str):
            data = data.encode()
        if isinstance(data, bytes | bytearray | memoryview):
            self._run(*operation, stdio=captured(bytes(data)), room=_MIB)
        elif (fd := regular(data)) is not None:
            self._run(*operation, stdio=with_input(fd), room=_MIB)
        else:
            with self._started(*operation[:-1], flags + "c", stdin=True) as process:
                feed(process, data)
                self._end(process, "write", path)
        return None

    def list(self, path: StrPath = ".", *, max_entries: int = 100_000) -> list[FileInfo]:
        """What is in a folder, by name. More than `max_entries` is an error."""
        room = min(_LISTING_BYTES, (max_entries + 1) * MOST_OF_ENTRY)
        entries = [*islice(read_entries(self._captured("list", path, room=room)), max_entries + 1)]
        if len(entries) > max_entries:
            raise FileError(
                f"{os.fspath(path)!r} has more entries than wanted",
                path=os.fspath(path),
                errno=27,
                need=f"at most {max_entries} entries",
                hint="a larger max_entries",
            )
        return sorted(entries, key=lambda one: one.name)

    def stat(self, path: StrPath, *, follow: bool = True) -> FileInfo:
        """What is known of a file; with `follow`, of what a link leads to."""
        data = self._captured("stat", path, "1" if follow else "0", room=_MIB)
        (found, *more) = [*read_entries(data)] or [None]
        if found is None or more:
            raise BoxLost("the box sent an entry that can't be read", have=f"{len(data)} bytes")
        return found

    def exists(self, path: StrPath) -> bool:
        """Whether something is there; a link that leads nowhere is not."""
        try:
            self.stat(path)
        except FileError as error:
            if error.errno in (2, 20):
                return False
            raise
        return True

    def mkdir(self, path: StrPath, *, mode: int = 0o755, parents: bool = False) -> None:
        """Makes a folder; with `parents`, those above too, and then it may be there already."""
        self._captured("mkdir", path, str(mode & 0o777), "1" if parents else "0", room=_MIB)

    def remove(self, path: StrPath, *, recursive: bool = False) -> None:
        """Removes a file, a link or an empty folder; with `recursive`, a folder with all that is in it."""
        self._captured("remove", path, "1" if recursive else "0", room=_MIB)

    def move(self, source: StrPath, target: StrPath, *, replace: bool = False) -> None:
        """Renames; with `replace`, over what is there."""
        self._captured("move", source, os.fspath(target), "1" if replace else "0", room=_MIB)

    def upload(self, source: StrPath, path: StrPath) -> None:
        """Copies a file of the host, or a folder with the files, folders and links in it, to `path`.

        A folder is put into what is there. Modes come along, but that a file which is there keeps its own. It is sent
        as it is read, in little memory, and no link of it is followed. Raises SpecError for what is none of these, for
        what becomes something else meanwhile, and for more than 256 folders in each other.
        """
        kind = Path(source).stat().st_mode
        if stat.S_ISREG(kind):
            with Path(source).open("rb") as file:
                self.write(path, file, mode=kind & 0o777)
            return
        if not stat.S_ISDIR(kind):
            raise SpecError("can't be taken along", path=os.fspath(source), need="a file, a folder or a link")
        with self._started("unpack", path, stdin=True) as process:
            assert process.stdin is not None
            try:
                pack_folder(source, process.stdin)
            except BrokenPipeError:
                # It says why.
                pass
            process.stdin.close()
            self._end(process, "unpack", path)

    def download(self, path: StrPath, target: StrPath, *, max_bytes: int = 1 << 30, max_entries: int = 100_000) -> None:
        """Copies a file or folder of the box to `target`, which must not be there: whole, or nothing.

        What comes is hostile. A link or a name that leads out of the folder, a name that comes twice, anything that is
        neither file, folder nor link, and more than `max_bytes` in all, `max_entries` or 256 folders in each other are
        a FileError that names it. Setuid bits and owners do not come along. Memory stays small.
        """
        if os.path.lexists(target):
            raise SpecError("the target is there already", path=os.fspath(target), need="a name that is free")
        found = self.stat(path)
        if found.kind == "folder":
            with self._started("pack", path) as process:
                unpack_folder(process.stdout, target, max_bytes, max_entries, lambda: self._end(process, "pack", path))
            return
        with self._started("read", path, "0", str(max_bytes + 1)) as process:
            mode = found.mode & 0o777 | 0o400
            save(process, target, mode, max_bytes, lambda: self._end(process, "read", path))

    def watch(self, path: StrPath, *, recursive: bool = False) -> Watch:
        """Changes of a folder's entries as they come (FileEvent), with `recursive` of all folders below too.

        It has no timeout: it ends when it is closed, and where its box ends the next change is BoxLost.
        """
        process = self._started("watch", path, "1" if recursive else "0", stdin=True, timed=False)
        return Watch(process, lambda: self._end(process, "watch", path))

    def _request(self, operation: str, path: StrPath, *rest: str, room: int | None, timed: bool = True) -> Request:
        # Nothing is no name of the working directory: what is to be removed may come from a variable that was not set.
        argv = ["files", operation, os.fspath(path), *rest]
        places = [argv[2], *(rest[:1] if operation == "move" else ())]
        # The working directory may be what is to be made.
        request = self._face.request(argv, workdir="/" if all(one.startswith("/") for one in places) else None)
        request.output_bytes = None if room is None else room + _CHUNK
        if not timed:
            request.timeout_s = None
        return request

    def _captured(self, operation: str, path: StrPath, *rest: str, room: int) -> bytes:
        return self._run(operation, path, *rest, stdio=captured(None), room=room)

    def _run(self, operation: str, path: StrPath, *rest: str, stdio: Stdio, room: int) -> bytes:
        try:
            request = self._request(operation, path, *rest, room=room)
            attendance = self._face.carry_out(
                request, stdio, builtin=True, attending=lambda one: self._under_way(one and one.stop)
            )
        finally:
            stdio.done()
        out, err = attendance.sinks
        if attendance.exit is not None and attendance.exit.errno:
            raise exec_failed(request, attendance.exit.errno, attendance.exit.step)
        self._judge(attendance, operation, path, bytes(err.data))
        return bytes(out.data)

    def _started(self, operation: str, path: StrPath, *rest: str, stdin: bool = False, timed: bool = True) -> Process:
        request = self._request(operation, path, *rest, room=None, timed=timed)
        opened, writer = streamed(PIPE if stdin else None)
        process = self._face.begin(request, opened, writer, bounded=False, builtin=True)
        self._under_way(process.kill)
        return process

    def _end(self, process: Process, operation: str, path: StrPath) -> None:
        # What is left of its output is nothing; one that goes on is not waited for.
        if process.stdout.read1(1):
            process.close()
            raise BoxLost("the box sent more than there was to send", have=operation)
        result = process.wait()
        if not result.ok:
            self._refuse(result.exit.kind, result.exit.signal, operation, path, bytes(result.stderr))

    def _judge(self, attendance: Attendance, operation: str, path: StrPath, said: bytes) -> None:
        seen = attendance.exit
        if attendance.timed_out or attendance.flooded:
            self._refuse("timeout" if attendance.timed_out else "output", None, operation, path, b"")
        elif seen is None or seen.status:
            signal = os.WTERMSIG(seen.status) if seen is not None and os.WIFSIGNALED(seen.status) else None
            self._refuse("signaled" if signal else "exited", signal, operation, path, said)

    @staticmethod
    def _refuse(kind: str, signal: int | None, operation: str, path: StrPath, said: bytes) -> None:
        if kind == "exited":
            raise file_error(operation, os.fspath(path), said)
        raise FileError(
            f"{operation} {os.fspath(path)!r} was ended in the box",
            path=os.fspath(path),
            need="an operation that ends by itself",
            have=f"signal {signal}" if signal else kind,
            hint="a larger timeout_s, or a profile that allows it" if kind != "output" else "ask for less at once",
        )
