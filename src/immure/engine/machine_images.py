"""Images of machines: a folder packed as one read-only file system, and the root of their first process.

Both are kept beside the cache, in `$XDG_CACHE_HOME/immure/images`, by what they are made of.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path

from immure.engine import cache
from immure.engine.local import run
from immure.errors import RuntimeUnavailable, SetupFailed
from immure.host.content import content_sha256
from immure.host.identity import identity_of
from immure.host.native import native_program
from immure.plan.initramfs import initramfs

PACKER = "mkfs.erofs"
GET_PACKER = "install it (Debian, Fedora: erofs-utils)"
#: An image is made anew when it is older than so many others.
_MOST = 8
_FORM = 1
_USED = ".used"
_SAID = 1000
#: Nobody packs for so long.
_ABANDONED_S = 86_400
#: Everything is the machine's root's, and nothing tells when it was packed.
_OPTIONS = ("-T", "0", "--all-root", "-U", "00000000-0000-4000-8000-000000000000")


def packed_folder(folder: str) -> Path:
    """The image of a folder with a root file system. It takes a moment for each content, once.

    What packs it is in a box: the folder may be anybody's. Raises RuntimeUnavailable without a packer, SetupFailed
    where it fails, and OSError for a folder that can't be read.
    """
    name = sha256(f"{_FORM} {content_sha256(folder)}".encode()).hexdigest()[:32]
    return _kept(f"{name}.erofs", lambda place: _pack(folder, place))


def first_root() -> Path:
    """The initramfs with our init of this version."""
    program = Path(native_program())
    name = sha256(f"{_FORM} {identity_of(str(program))}".encode()).hexdigest()[:32]
    return _kept(f"{name}.cpio", lambda place: place.write_bytes(initramfs(program.read_bytes())))


def _kept(name: str, make: Callable[[Path], object]) -> Path:
    folder = _folder()
    place = folder / name
    if place.exists():
        _mark_used(place)
        return place
    part = folder / f".{secrets.token_hex(8)}"
    try:
        make(part)
        # A box's user is somebody else; the folder above is private.
        part.chmod(0o444)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
    _sweep(folder)
    return place


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
    return folder


def _mark_used(place: Path) -> None:
    """Beside it: a time of its own that changes would make it another file for whoever was made of it."""
    place.with_name(place.name + _USED).touch()


def _sweep(folder: Path) -> None:
    """Removes the oldest of each kind, and what killed callers have left. A machine keeps what it has open."""
    used = {str(one).removesuffix(_USED): when for one, when in _by_age(folder.glob(f"*{_USED}"))}
    for kind in ("*.erofs", "*.cpio"):
        found = [(max(when, used.get(str(one), 0)), one) for one, when in _by_age(folder.glob(kind))]
        for _, one in sorted(found)[:-_MOST]:
            one.unlink(missing_ok=True)
            one.with_name(one.name + _USED).unlink(missing_ok=True)
    abandoned = time.time() - _ABANDONED_S
    for one, changed in _by_age(folder.glob(".*")):
        if changed < abandoned:
            if one.is_dir():
                shutil.rmtree(one, ignore_errors=True)
            else:
                one.unlink(missing_ok=True)


def _by_age(found: Iterable[Path]) -> list[tuple[Path, float]]:
    """The oldest first. Others may remove them meanwhile."""
    seen: list[tuple[Path, float]] = []
    for one in found:
        try:
            seen.append((one, one.lstat().st_mtime))
        except FileNotFoundError:
            continue
    return sorted(seen, key=lambda one: one[1])


def _pack(folder: str, place: Path) -> None:
    if shutil.which(PACKER) is None:
        raise RuntimeUnavailable(
            "an image can't be packed for a machine",
            need=PACKER,
            have="none on PATH",
            hint=GET_PACKER,
        )
    inbox = place.with_name(f"{place.name}.d")
    inbox.mkdir(mode=0o700)
    try:
        result = run(
            [PACKER, *_OPTIONS, "/made/image", "/image"],
            mounts=[(folder, "/image", "ro"), (str(inbox), "/made", "rw")],
        )
        if not result.ok:
            said = result.stderr.text().strip() or result.stdout.text().strip()
            raise SetupFailed(
                f"the image {folder} can't be packed for a machine",
                step=PACKER,
                need="a folder that this user can read whole",
                have=said[-_SAID:],
            )
        (inbox / "image").replace(place)
    finally:
        shutil.rmtree(inbox, ignore_errors=True)
