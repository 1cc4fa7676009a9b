"""Looks at what a spec names on this host: the sources of its mounts, and the folder of its image."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from immure.errors import SpecError
from immure.host.facts import ImageFolder, SourceFacts
from immure.host.identity import identity_of
from immure.host.image import is_host_root, read_image
from immure.host.layout import INDEX, is_layout, split_tag
from immure.host.listing import MOST
from immure.plan.root import mount_path
from immure.spec.models import SandboxSpec

_IMAGE = "$.spec.image"


def look_at_sources(spec: SandboxSpec, base: Path) -> tuple[SourceFacts, ...]:
    """What each mount's source is now. Raises SpecError for one that can't be used."""
    found: list[SourceFacts] = []
    for index, mount in enumerate(spec.files.mounts):
        if mount.source is not None:
            path = _absolute(mount.source, base)
            found.append(_source(path, f"$.spec.files.mounts[{index}].source"))
    return tuple(found)


def look_at_image(spec: SandboxSpec, base: Path) -> ImageFolder | None:
    """What the folder of the image holds now; None for `image: host`. An OCI layout is unpacked where it has not been.

    Raises SpecError for one that can't be used.
    """
    if spec.image == "host":
        return None
    path, tag = split_tag(_absolute(spec.image, base))
    try:
        origin = None
        if is_layout(path):
            from immure.engine.oci_images import unpacked_layout

            # Before it is read: one that changes meanwhile is looked at anew.
            index = f"{path}/{INDEX}"
            origin = (index, identity_of(index) or ())
            path = str(unpacked_layout(path, tag, os.uname().machine))
        if is_host_root(path):
            raise SpecError(
                f"{path} is the root of this host",
                path=_IMAGE,
                need="a folder with a root file system of its own",
                have=repr(spec.image),
                hint="`image: host` shows what programs need of the host",
            )
        image = read_image(path, [mount_path(mount) for mount in spec.files.mounts], origin)
    except (OSError, ValueError) as error:
        raise _unusable(
            f"the image {path}", _IMAGE, "a folder with a root file system", error, "unpack the image there"
        ) from error
    if len(image.entries) > MOST:
        raise SpecError(
            f"the image {path} is too large at its top",
            path=_IMAGE,
            need=f"{MOST} entries at most",
            have="more",
            hint="is it the folder with the root file system?",
        )
    return image


def _source(path: str, where: str) -> SourceFacts:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except (OSError, ValueError) as error:
        raise _unusable(
            f"the mount source {path}", where, "a folder or file that exists", error, "create it"
        ) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SpecError(
            f"the mount source {path} can't be used",
            path=where,
            need="a folder or a regular file",
            have="a socket, pipe or device",
        )
    if not any(os.access(path, right, effective_ids=True) for right in (os.R_OK, os.W_OK, os.X_OK)):
        raise SpecError(
            f"the mount source {path} can't be used",
            path=where,
            need="a folder or file that you may read",
            have=os.strerror(13),
            hint="run as a user who may, or mount another path",
        )
    return SourceFacts(path=path, kind="folder" if stat.S_ISDIR(mode) else "file")


def _unusable(what: str, where: str, need: str, error: OSError | ValueError, remedy: str) -> SpecError:
    if isinstance(error, PermissionError):
        remedy = "run as a user who may read it"
    return SpecError(
        f"{what} can't be used",
        path=where,
        need=need,
        have=error.strerror if isinstance(error, OSError) else str(error),
        hint=f"{remedy}, or name another path",
    )


def _absolute(path: str, base: Path) -> str:
    # Unlike a Path's, this leaves a ~ of nobody as it is, which is then not found.
    return os.path.normpath(base / os.path.expanduser(path))  # noqa: PTH111
