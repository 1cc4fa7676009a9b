"""Where images, and machines that have booted, are kept: beside the cache, in `$XDG_CACHE_HOME/immure/images`, by what
they are made of.

Who makes one holds its lock, so that two callers never make the same, and so that what a caller who was killed has left
is known by a lock that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from immure.engine import cache
from immure.engine.held_folders import is_at
from immure.engine.notices import tell
from immure.errors import RuntimeUnavailable

#: How many of a kind are kept, the newest. One of a host takes as much as that has installed.
MOST = {"erofs": 8, "cpio": 8, "host": 2, "mounts": 8, "machine": 8}


def found(name: str) -> Path | None:
    """The one of this name, if there is one. Raises RuntimeUnavailable without a place for them."""
    place = _folder() / name
    return place if _used(place) else None


def forget(place: Path) -> None:
    """It is made anew for who needs it next. Whoever has it open keeps it."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
    _marker(place).unlink(missing_ok=True)


def kept(name: str, make: Callable[[Path], object]) -> Path:
    """The file or folder of this name, made where there is none: `make` makes it at the path that it is given.

    A name's suffix is its kind; of those in MOST some are kept, and of others all. Raises as `make` does, and leaves
    nothing behind then.
    """
    folder = _folder()
    place = folder / name
    if not _used(place):
        with _locked(folder, name):
            # Another caller may have made it meanwhile.
            if not _used(place):
                _make(place, make)
        _sweep(folder)
    return place


@contextmanager
def scratch(kind: str) -> Generator[Path]:
    """A folder for what is needed for a moment. What a caller who was killed leaves goes with the next."""
    folder, name = _folder(), f"{secrets.token_hex(8)}.{kind}"
    with _locked(folder, name):
        part = folder / f".{name}.part"
        part.mkdir(mode=0o700)
        try:
            yield part
        finally:
            _remove(part)


def _used(place: Path) -> bool:
    if not place.exists():
        return False
    _marker(place).touch()
    return True


def _marker(place: Path) -> Path:
    """When it was last used: the newest are kept. It has a time of its own, since that of the file's last change says
    whether it is what a box was made of.
    """
    return place.with_name(f".{place.name}.used")


def _make(place: Path, make: Callable[[Path], object]) -> None:
    part = place.with_name(f".{place.name}.part")
    _remove(part)
    part.mkdir(mode=0o700)
    try:
        made = part / "image"
        make(made)
        # A box's user is somebody else; the folder above is private.
        made.chmod(0o755 if made.is_dir() else 0o444)
        made.replace(place)
    finally:
        _remove(part)


def _folder() -> Path:
    above = cache.folder()
    if above is None:
        raise RuntimeUnavailable(
            "images of machines have no place",
            need="a cache folder of this user's own, which nobody else may enter",
            have="none that can be made or trusted",
            hint="set XDG_CACHE_HOME to a folder that you own",
        )
    folder = Path(above) / "images"
    folder.mkdir(mode=0o700, exist_ok=True)
    _clear(folder)
    return folder


@contextmanager
def _locked(folder: Path, name: str) -> Generator[None]:
    lock = folder / f".{name}.lock"
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _try(fd):
                tell(f"waiting for another process that makes {folder / name}")
                fcntl.flock(fd, fcntl.LOCK_EX)
            if is_at(fd, lock):
                try:
                    yield
                finally:
                    lock.unlink(missing_ok=True)
                return
        finally:
            os.close(fd)


def _try(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clear(folder: Path) -> None:
    """Removes what callers who were killed have left."""
    for lock in folder.glob(".*.lock"):
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            if _try(fd) and is_at(fd, lock):
                _remove(lock.with_suffix(".part"))
                lock.unlink(missing_ok=True)
        finally:
            os.close(fd)


def _remove(part: Path) -> None:
    shutil.rmtree(part, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Removes the oldest of each kind. A machine keeps what it has open."""
    for kind, most in MOST.items():
        for one in _by_age(folder.glob(f"*.{kind}"))[:-most]:
            forget(one)


def _by_age(found: Iterable[Path]) -> list[Path]:
    """The one that was used longest ago first."""
    return sorted(found, key=lambda one: max(_changed(one), _changed(_marker(one))))


def _changed(path: Path) -> float:
    """0 for one that others have removed meanwhile."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0
