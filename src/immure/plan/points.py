"""Where in an image's folder mounts can stand: at what is there, since no layer above it takes what is made."""

from __future__ import annotations

from immure.errors import SpecError
from immure.host.facts import ImageFolder, Place
from immure.host.links import first_name
from immure.plan.image import Image


def check_point(path: str, where: str, image: Image, *, is_file: bool) -> None:
    """Raises SpecError, at `where` in the spec, for a mount in what the image shows that finds no place there.

    `path` lies in no other mount.
    """
    folder = image.folder
    if folder is None or path not in folder.places:
        return
    place = folder.places[path]
    wanted = "file" if is_file else "folder"
    if place.path == path and place.kind == wanted:
        return
    raise SpecError(
        f"{path} is no {wanted} of the image",
        path=where,
        need=f"a {wanted} that is there, since nothing can be made in what an image shows",
        have=_have(place),
        hint=_hint(path, place, folder, wanted),
    )


def _have(place: Place) -> str:
    if place.kind == "missing":
        return f"{place.path}: {place.detail}"
    if place.kind == "link":
        return f"{place.path} is a symbolic link to {place.detail}"
    return f"{place.path} is a {place.kind if place.kind != 'other' else 'socket, pipe or device'}"


def _hint(path: str, place: Place, folder: ImageFolder, wanted: str) -> str:
    if place.kind == "link":
        return "name the folder that the link leads to, as the box sees it"
    if place.kind != "missing":
        return "mount elsewhere"
    top = first_name(path)
    return (
        f"make the {wanted} {folder.path.rstrip('/')}{path}, mount outside of /{top}, "
        f"or mount a tmpfs on /{top} where nothing else of it is needed"
    )
