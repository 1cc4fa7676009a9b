"""Reads the folder of an image: what its root has, and what it has where mounts are to stand."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, cast

from immure.host.facts import ImageEntry, ImageFolder, Place
from immure.host.links import first_name, through_links
from immure.host.listing import kind_of_mode, list_image


def read_image(path: str, targets: Iterable[str], origin: tuple[str, tuple[int, ...]] | None = None) -> ImageFolder:
    """What the folder holds now. `targets` are the mounts' places in the box.

    Links of what it holds are never followed here, except as the box will: an image is untrusted. Raises OSError.
    """
    listing = list_image(path)
    entries = tuple(
        ImageEntry(name=name, kind=cast("Any", kind), target=leads_to) for name, kind, leads_to, _ in listing[1]
    )
    links = {entry.name: entry.target for entry in entries if entry.kind == "link"}
    shown = {entry.name for entry in entries if entry.kind in ("folder", "file")}
    found = {through_links(target, links) for target in targets}
    top = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        places = {target: _look(top, target) for target in sorted(found) if first_name(target) in shown}
    finally:
        os.close(top)
    return ImageFolder(path=path, entries=entries, places=places, listing=listing, origin=origin)


def is_host_root(path: str) -> bool:
    """Whether the folder is this host's own root, by whatever name. Raises OSError."""
    return os.path.samefile(path, "/")  # noqa: PTH121


def _look(top: int, target: str) -> Place:
    """What is there, or the first thing on the way that is no folder."""
    parts = target.strip("/").split("/")
    path, kind = "/", "folder"
    above = os.dup(top)
    try:
        for depth, part in enumerate(parts, 1):
            path = "/" + "/".join(parts[:depth])
            try:
                here = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            except (OSError, ValueError) as error:
                return Place(path=path, kind="missing", detail=getattr(error, "strerror", None) or str(error))
            os.close(above)
            above = here
            kind = kind_of_mode(os.fstat(here).st_mode)
            if kind == "link":
                return Place(path=path, kind="link", detail=os.readlink("", dir_fd=here))
            if kind != "folder":
                break
        return Place(path=path, kind=cast("Any", kind))
    finally:
        os.close(above)
