"""Images out of OCI layouts: their layers put together in a folder, once for each image, which then serves any runtime.

The layers are put together in a box: they are hostile, and it needs no powers. Folders are kept beside the images of
machines, by the digest of the manifest, until somebody removes them: boxes may be running in them.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from hashlib import new
from pathlib import Path

import msgspec

from immure.engine import oci_unpacking
from immure.engine.image_store import kept
from immure.engine.local import run
from immure.engine.notices import tell_when_long
from immure.errors import SpecError
from immure.formats.oci_layout import (
    MOST_DOCUMENT_BYTES,
    Descriptor,
    Layer,
    check_layout,
    choose,
    config_of,
    is_index,
    layers_of,
)
from immure.host.layout import INDEX

_FORM = 1
#: Of what is unpacked. No image that anybody means has more.
MOST_BYTES, MOST_ENTRIES = 64 << 30, 4_000_000
#: How often an index may name another one.
_MOST_INDEXES = 4
_SAID = 1000
_LAYOUT, _MADE = "/layout", "/made"
_UNPACKS_S = 3600.0


def unpacked_layout(path: str, tag: str | None, arch: str) -> Path:
    """The folder with the root file system of an image for this host.

    Raises SpecError for a layout that is none, has no such image, or whose layers are not what they should be.
    """
    check_layout(_read(path, "oci-layout"))
    manifest = choose(_read(path, INDEX), arch, tag)
    for _ in range(_MOST_INDEXES):
        if not is_index(manifest):
            break
        # A name is for the whole of it.
        manifest = choose(_blob(path, manifest), arch, None, "an index")
    document = _blob(path, manifest)
    layers = layers_of(document, _blob(path, config_of(document)), arch)
    name = manifest.digest.replace(":", "-")
    return kept(f"{name}.{_FORM}.root", lambda place: _unpack(path, layers, place))


def _unpack(path: str, layers: tuple[Layer, ...], place: Path) -> None:
    place.mkdir(mode=0o755)
    task = {
        "layers": msgspec.to_builtins(layers),
        "blobs": f"{_LAYOUT}/blobs",
        "target": f"{_MADE}/{place.name}",
        "most_bytes": MOST_BYTES,
        "most_entries": MOST_ENTRIES,
    }
    program = Path(oci_unpacking.__file__).read_text()
    with tell_when_long(f"unpacking {path}, once"):
        result = run(
            [sys.executable, "-I", "-S", "-B", "-c", program, json.dumps(task)],
            preset="python",
            mounts=[(path, _LAYOUT, "ro"), (str(place.parent), _MADE, "rw")],
            timeout_s=_UNPACKS_S,
        )
    if not result.ok:
        raise _failure(path, result.stderr.text().strip()[-_SAID:] or str(result.exit), place)


def _failure(path: str, said: str, place: Path) -> SpecError:
    full = "No space left on device" in said
    return SpecError(
        f"the image {path} can't be unpacked",
        path="$.spec.image",
        need=f"room for it in {place.parents[1]}" if full else "layers that are what their digests say, within bounds",
        have=said,
        hint="set XDG_CACHE_HOME to a folder with more room" if full else None,
    )


def _blob(path: str, descriptor: Descriptor) -> bytes:
    algorithm, _, name = descriptor.digest.partition(":")
    content = _read(path, f"blobs/{algorithm}/{name}")
    if len(content) != descriptor.size or new(algorithm, content).hexdigest() != name:
        raise SpecError(
            f"blobs/{algorithm}/{name} of the layout is not what its name says",
            path="$.spec.image",
            need=f"{descriptor.size} bytes with this digest",
            have=f"{len(content)} bytes with another",
            hint="fetch the image again",
        )
    return content


def _read(path: str, name: str) -> bytes:
    """A document of a layout. Links are not followed, and nothing is waited for."""
    try:
        fd = os.open(f"{path}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(name, error.strerror or "nothing") from error
    with open(fd, "rb") as file:  # noqa: PTH123
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_DOCUMENT_BYTES:
            raise _unreadable(name, f"{found.st_size} bytes" if stat.S_ISREG(found.st_mode) else "no file")
        return file.read(MOST_DOCUMENT_BYTES)


def _unreadable(name: str, have: str) -> SpecError:
    return SpecError(
        f"{name} of the layout can't be read",
        path="$.spec.image",
        need=f"a file of {MOST_DOCUMENT_BYTES} bytes at most",
        have=have,
    )
