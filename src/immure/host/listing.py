"""What stands at the top of an image's folder, in plain values: plans follow from it, and caches compare it.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    #: Device, inode, and time of change in nanoseconds.
    Identity = tuple[int, int, int]
    #: Name, kind, where a link leads, and which object it is.
    Entry = tuple[str, str, str, Identity]
    Listing = tuple[Identity, tuple[Entry, ...]]

#: A box has its own, so that those of an image's folder don't count.
OWN = ("proc", "dev", "sys", "tmp", ".immure")
#: No root has so many; each folder is a mount of every box.
MOST = 200


def list_image(path: str) -> Listing:
    """The folder's identity and its entries by name, without those that a box has of its own.

    A kind is `folder`, `link`, `file` or `other`. Where there are more than MOST, some of them. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _identity(os.fstat(fd)), tuple(sorted(_entries(fd)))
    finally:
        os.close(fd)


def _entries(folder: int) -> list[Entry]:
    entries: list[Entry] = []
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name in OWN:
                continue
            seen = entry.stat(follow_symlinks=False)
            kind = kind_of_mode(seen.st_mode)
            leads_to = os.readlink(entry.name, dir_fd=folder) if kind == "link" else ""
            entries.append((entry.name, kind, leads_to, _identity(seen)))
            if len(entries) > MOST:
                break
    return entries


def kind_of_mode(mode: int) -> str:
    """`folder`, `link`, `file`, or `other` for sockets, pipes and devices."""
    return {stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFREG: "file"}.get(stat.S_IFMT(mode), "other")


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_mtime_ns
