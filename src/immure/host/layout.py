"""Tells folders with an OCI image layout from others."""

from __future__ import annotations

from pathlib import Path

INDEX = "index.json"


def is_layout(path: str) -> bool:
    """Whether this is a folder with an OCI image layout."""
    return Path(path, "oci-layout").is_file() and Path(path, INDEX).is_file()


def split_tag(path: str) -> tuple[str, str | None]:
    """A layout and the name of an image in it, where it is written so; else the path as it is."""
    folder, colon, tag = path.rpartition(":")
    if colon and tag and "/" not in tag and not Path(path).exists() and is_layout(folder):
        return folder, tag
    return path, None
