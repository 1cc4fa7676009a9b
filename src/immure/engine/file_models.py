"""What is known of files in a box, and how that is read from what the box sent, which is hostile."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from immure.errors import BoxLost, FileError

Kind = Literal["file", "folder", "link", "other"]
Change = Literal[
    "created", "deleted", "modified", "written", "attributes", "moved_from", "moved_to", "gone", "overflow", "other"
]

_KINDS: tuple[Kind, ...] = ("file", "folder", "link", "other")
#: native/src/files/entry.rs: kind, mode, uid, gid, size, modified, lengths of name and target.
_ENTRY = struct.Struct("<BIIIQqII")
_EVENT = struct.Struct("<II")
#: inotify(7).
_CHANGES: tuple[tuple[int, Change], ...] = (
    (0x100, "created"),
    (0x200, "deleted"),
    (0x2, "modified"),
    (0x8, "written"),
    (0x4, "attributes"),
    (0x40, "moved_from"),
    (0x80, "moved_to"),
    (0xC00, "gone"),
    (0x4000, "overflow"),
)
_IS_FOLDER = 0x4000_0000
#: PATH_MAX, and a name below.
_MOST_PATH = 8192


class FileInfo(Struct, frozen=True):
    """A file, folder, link or something else (FIFO, socket, device) of a box.

    What is no UTF-8 in `name` and `target` is there as os.fsdecode has it. `mode` are the permission bits, and ids are
    those of the box.
    """

    name: str
    kind: Kind
    size_bytes: int
    mode: int
    uid: int
    gid: int
    modified_ns: int
    target: str | None


class FileEvent(Struct, frozen=True):
    """A change that was watched for. After `overflow` some are missing: look for yourself. With a path it is that of a
    folder which can't be watched.

    What comes into a folder at the moment in which that is made may be told twice.
    """

    path: str
    change: Change
    folder: bool


def read_entries(data: bytes) -> Iterator[FileInfo]:
    """The entries of a listing. Raises BoxLost where it is none."""
    offset = 0
    while offset < len(data):
        start = offset + _ENTRY.size
        if start > len(data):
            raise BoxLost("the box sent a listing that can't be read", have=f"{len(data)} bytes")
        kind, mode, uid, gid, size, modified, name_length, target_length = _ENTRY.unpack_from(data, offset)
        end = start + name_length
        offset = end + target_length
        if kind >= len(_KINDS) or offset > len(data):
            raise BoxLost("the box sent a listing that can't be read", have=f"{len(data)} bytes")
        known: Kind = _KINDS[int(kind)]
        target = os.fsdecode(data[end:offset]) if known == "link" else None
        yield FileInfo(os.fsdecode(data[start:end]), known, size, mode, uid, gid, modified, target)


def event_length(head: bytes) -> int:
    """How long the path is that follows the first bytes of an event. Raises BoxLost for one that there is not."""
    length = _EVENT.unpack(head)[1]
    if length > _MOST_PATH:
        raise BoxLost("the box sent an event that can't be read", have=f"a path of {length} bytes")
    return length


def read_event(head: bytes, path: bytes) -> FileEvent | None:
    """An event; None for the word that watching has begun."""
    what = _EVENT.unpack(head)[0]
    if what == 0:
        return None
    found: list[Change] = [name for bits, name in _CHANGES if what & bits]
    return FileEvent(os.fsdecode(path), found[0] if found else "other", bool(what & _IS_FOLDER))


EVENT_HEAD = _EVENT.size
#: No entry takes more: a name of 255 bytes, and a target of PATH_MAX.
MOST_OF_ENTRY = _ENTRY.size + 255 + 4096

_NEEDS: dict[int, tuple[str, str | None]] = {
    2: ("something that is there", None),
    13: ("rights of the box's user to it", "mount the folder rw, or choose another user"),
    1: ("rights of the box's user to it", "mount the folder rw, or use a seccomp profile that allows what this takes"),
    30: ("a place that can be written", "mount the folder rw, or use /tmp"),
    17: ("a name that is free", "remove what is there, or say that it may be replaced"),
    20: ("a folder", None),
    21: ("a file", "folders are listed, and downloaded as a whole"),
    22: ("a path that there can be", None),
    116: ("a folder that stays where it is", "something moves it meanwhile; try again"),
    27: ("a file that is not larger", None),
    28: ("room", "a larger disk_mib, or a folder that is mounted rw"),
    39: ("an empty folder", "say recursive=True"),
    40: ("a path without rings of links", None),
    6: ("a file, a folder or a link", "it is a FIFO, a socket or a device"),
    18: ("both in one file system", "copy it, and remove the first"),
    36: ("a name of at most 255 bytes", None),
    38: ("a profile that allows it", "the box's seccomp profile refuses a call that this takes"),
}


def file_error(operation: str, path: str, said: bytes) -> FileError:
    """The error that an operation's process told of, in `ERRNO STEP`; that is believed as far as it is one."""
    word = said[:64].split(b"\n")[0].split(b" ")[0]
    number = int(word) if word.isdigit() and len(word) <= 4 else 0
    need, hint = _NEEDS.get(number, (None, None))
    if (operation, number) == ("watch", 28):
        need, hint = "fewer folders below it", "watch a folder further down, or without recursive"
    return FileError(
        f"{operation} {path!r} failed in the box",
        path=path,
        errno=number,
        need=need,
        have=os.strerror(number) if number else "no reason that can be read",
        hint=hint,
    )
