"""Images of machines: a folder, or what `image: host` shows, packed as one read-only file system; and a first root.

What packs them is in a box: a folder may be anybody's, and of the host it is to see what any box sees.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from immure.engine.image_store import kept
from immure.engine.local import run
from immure.engine.notices import tell_when_long
from immure.engine.result import Result
from immure.errors import RuntimeUnavailable, SetupFailed
from immure.host.content import content_sha256, quick_content
from immure.host.facts import HostImage, SourceFacts
from immure.host.identity import identity_of
from immure.host.native import native_program
from immure.plan.initramfs import initramfs

PACKER = "mkfs.erofs"
GET_PACKER = "install it (Debian, Fedora: erofs-utils)"
_FORM = 3
_SAID = 1000
_PACKING = "packing {} for machines, once until something in it changes; it takes as long as copying it"
#: Files keep their times: Python compiles anew what is not as old as it was.
_OPTIONS = ("--quiet", "--preserve-mtime", "-U", "00000000-0000-4000-8000-000000000000")
#: Everything is the machine's root's.
_ROOT_S = ("--all-root",)
_MADE, _FOLDER = "/made", "/image"
#: Of a box's root, what a machine has of its own, or gets for each box.
_NOT_THE_HOST_S = ("dev", "proc", "sys", "tmp", ".immure", _MADE[1:])
#: The packer reads them of what is left out too. A box's commands gain nothing by those of files.
_NO_ATTRIBUTES = ("-x-1",)
#: As many as an argument list easily holds.
_MOST_UNREADABLE = 1000


def packed_folder(folder: str) -> Path:
    """The image of a folder with a root file system. It takes a moment for each content, once.

    Raises RuntimeUnavailable without a packer, SetupFailed where it fails, and OSError for a folder that can't be read.
    """
    name = sha256(f"{_FORM} {content_sha256(folder)}".encode()).hexdigest()[:32]
    return kept(f"{name}.erofs", lambda place: _pack_folder(folder, place))


def packed_host(shown: HostImage) -> Path:
    """The image of what `image: host` shows of this host. It takes as long as copying that, once for each content.

    What a box's user can't read is left out, where an ordinary box shows it and lets nobody open it. Raises
    RuntimeUnavailable without a packer, and SetupFailed where it fails.
    """
    with tell_when_long(f"looking whether something in {' '.join(shown.folders)} has changed", seldom=True):
        content = quick_content(shown.folders)
    copies = [_last_change(path) for path in shown.copies]
    name = sha256(f"{_FORM} {shown} {content} {copies}".encode()).hexdigest()[:32]
    return kept(f"{name}.host", lambda place: _pack_host(shown, place))


def packed_mounts(sources: Sequence[SourceFacts], user: int) -> Path:
    """The sources of a machine's mounts on one disk: by their number, and its user's.

    Raises RuntimeUnavailable without a packer, SetupFailed where it fails, and OSError for one that can't be read.
    """
    seen = [content_sha256(one.path) if one.kind == "folder" else _last_change(one.path) for one in sources]
    name = sha256(f"{_FORM} {user} {sources} {seen}".encode(errors="surrogateescape")).hexdigest()[:32]
    return kept(f"{name}.mounts", lambda place: _pack_mounts(sources, user, place))


def first_root() -> Path:
    """The initramfs with our init of this version."""
    program = Path(native_program())
    name = sha256(f"{_FORM} {identity_of(str(program))}".encode()).hexdigest()[:32]
    return kept(f"{name}.cpio", lambda place: place.write_bytes(initramfs(program.read_bytes())))


def _last_change(path: str) -> tuple[int, ...]:
    found = Path(path).stat()
    return found.st_ino, found.st_size, found.st_ctime_ns


def _pack_folder(folder: str, place: Path) -> None:
    with tell_when_long(_PACKING.format(folder)):
        result = _packed((*_ROOT_S, _FOLDER), place, mounts=[(folder, _FOLDER, "ro")])
    if not result.ok:
        raise _failure(result, f"the image {folder}", place, "a folder that this user can read whole")


def _pack_host(shown: HostImage, place: Path) -> None:
    left_out = [f"--exclude-path={path}" for path in (*_NOT_THE_HOST_S, *_unreadable(shown.folders))]
    with tell_when_long(_PACKING.format(" ".join(shown.folders))):
        result = _packed((*_ROOT_S, *_NO_ATTRIBUTES, *left_out, "/"), place)
    if not result.ok:
        raise _failure(result, "what `image: host` shows", place, "a file system that can be read")


def _pack_mounts(sources: Sequence[SourceFacts], user: int, place: Path) -> None:
    mounts = [(one.path, f"{_FOLDER}/{number}", "ro") for number, one in enumerate(sources)]
    what = " ".join(one.path for one in sources)
    with tell_when_long(_PACKING.format(what)):
        result = _packed((f"--force-uid={user}", f"--force-gid={user}", _FOLDER), place, mounts=mounts)
    if not result.ok:
        raise _failure(result, f"the mount of {what}", place, "folders and files that this user can read whole")


def _unreadable(folders: Sequence[str]) -> list[str]:
    """What a box's user can't read below these folders, without the leading `/`."""
    closed = ("!", "-readable", "-o", "-type", "d", "!", "-executable")
    result = run(["find", *folders, "!", "-type", "l", "(", *closed, ")", "-prune", "-print0"])
    found = result.stdout.decode(errors="surrogateescape").split("\0")[:-1]
    if not result.ok or len(found) > _MOST_UNREADABLE:
        raise SetupFailed(
            "what `image: host` shows can't be packed for machines",
            step="find",
            need=f"{_MOST_UNREADABLE} things at most that a box's user can't read",
            have=_said(result) or f"{len(found)} of them",
        )
    return [path[1:] for path in found]


def _packed(arguments: Sequence[str], place: Path, mounts: Sequence[Any] = ()) -> Result:
    if shutil.which(PACKER) is None:
        raise RuntimeUnavailable(
            "an image can't be packed for a machine", need=PACKER, have="none on PATH", hint=GET_PACKER
        )
    *options, source = arguments
    command = [PACKER, *_OPTIONS, *options, f"{_MADE}/{place.name}", source]
    return run(command, mounts=[*mounts, (str(place.parent), _MADE, "rw")])


def _failure(result: Result, what: str, place: Path, need: str) -> SetupFailed:
    said = _said(result)
    if "No space left on device" in said:
        return SetupFailed(
            f"{what} does not fit on the disk, packed for a machine",
            step=PACKER,
            need=f"as much room in {place.parents[1]} as it takes itself",
            have=f"{shutil.disk_usage(place.parent).free >> 20} MiB free",
            hint="set XDG_CACHE_HOME to a folder with more room",
        )
    return SetupFailed(f"{what} can't be packed for a machine", step=PACKER, need=need, have=said)


def _said(result: Result) -> str:
    return (result.stderr.text().strip() or result.stdout.text().strip())[-_SAID:]
