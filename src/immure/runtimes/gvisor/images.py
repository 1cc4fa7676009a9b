"""What a Sentry's checkpoint is kept in: a folder of this host, written and read by runsc in outer boxes."""

from __future__ import annotations

import os
from pathlib import Path

IMAGE = "image"


def make_folder(above: Path) -> int:
    """A folder for an image that an outer box's runsc may write, whoever it is. Gives a descriptor.

    `above` is private, and nobody else gets there.
    """
    folder = above / IMAGE
    folder.mkdir()
    folder.chmod(0o777)
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def take_over(above: Path, *, root: bool) -> None:
    """Makes what was written readable for the runsc of other boxes, and for nobody to write."""
    folder = above / IMAGE
    if root:
        for entry in folder.iterdir():
            os.chown(entry, os.geteuid(), os.getegid(), follow_symlinks=False)
            entry.chmod(0o444)
    folder.chmod(0o755)
