"""Changing what is mounted read-only. The folder is the caller's own: only the mount stands in the way."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from security.attempt import Outside, attempt
from security.calls import AT_FDCWD, call

_MS_RDONLY, _MS_REMOUNT, _MS_BIND = 1, 0x20, 0x1000
_MOUNT_ATTR_RDONLY, _AT_RECURSIVE = 1, 0x8000

# Landlock, where it is asked first, says EACCES.
_READ_ONLY = "EROFS EACCES"


@attempt(_READ_ONLY, scenes="sealed")
def overwrite(sealed: str) -> int:
    return Path(sealed, "text").write_text("changed")


@attempt(_READ_ONLY, scenes="sealed")
def append(sealed: str) -> int:
    with Path(sealed, "text").open("a") as file:
        return file.write("more")


@attempt(_READ_ONLY, scenes="sealed")
def truncate(sealed: str) -> str:
    os.truncate(f"{sealed}/text", 0)
    return "truncated"


@attempt(_READ_ONLY, scenes="sealed")
def replace_by_rename(sealed: str) -> str:
    Path(sealed, "other").replace(f"{sealed}/text")
    return "replaced"


@attempt(_READ_ONLY + " EXDEV", scenes="sealed workspace")
def replace_from_workspace(sealed: str, work: str) -> str:
    Path(work, "mine").write_text("changed")
    Path(work, "mine").replace(f"{sealed}/text")
    return "replaced"


@attempt(_READ_ONLY + " EXDEV", scenes="sealed workspace")
def write_by_hard_link(sealed: str, work: str) -> int:
    """Give the file a second name in a folder that can be written."""
    Path(work, "alias").hardlink_to(f"{sealed}/text")
    return Path(work, "alias").write_text("changed")


@attempt(_READ_ONLY, scenes="sealed workspace")
def write_by_symlink(sealed: str, work: str) -> int:
    Path(work, "alias").symlink_to(f"{sealed}/text")
    return Path(work, "alias").write_text("changed")


@attempt(_READ_ONLY, scenes="sealed")
def write_by_own_descriptor(sealed: str) -> int:
    """Open for reading, then open the descriptor anew for writing."""
    with Path(sealed, "text").open() as read, Path(f"/proc/self/fd/{read.fileno()}").open("r+") as write:
        return write.write("changed")


@attempt(_READ_ONLY, scenes="sealed")
def create(sealed: str) -> str:
    Path(sealed, "new").touch()
    return "created"


@attempt(_READ_ONLY, scenes="sealed")
def unlink(sealed: str) -> str:
    Path(sealed, "text").unlink()
    return "removed"


@attempt(_READ_ONLY, scenes="sealed")
def make_folder(sealed: str) -> str:
    Path(sealed, "folder").mkdir()
    return "created"


@attempt(_READ_ONLY, scenes="sealed")
def change_mode(sealed: str) -> str:
    Path(sealed, "text").chmod(0o777)
    return "changed"


@attempt(_READ_ONLY, scenes="sealed")
def change_times(sealed: str) -> str:
    os.utime(f"{sealed}/text", (0, 0))
    return "changed"


@attempt(_READ_ONLY, scenes="sealed")
def set_attribute(sealed: str) -> str:
    os.setxattr(f"{sealed}/text", "user.immure", b"changed")
    return "set"


@attempt("EPERM", scenes="sealed", outside=Outside.OWN_MOUNTS)
def remount_writable(sealed: str) -> str:
    call("mount", None, sealed.encode(), None, _MS_REMOUNT | _MS_BIND, None)
    Path(sealed, "new").touch()
    return "remounted"


@attempt("EPERM ENOSYS", scenes="sealed", outside=Outside.OWN_MOUNTS)
def clear_read_only_attribute(sealed: str) -> str:
    attributes = (ctypes.c_uint64 * 4)(0, _MOUNT_ATTR_RDONLY, 0, 0)
    call("mount_setattr", AT_FDCWD, sealed.encode(), _AT_RECURSIVE, attributes, 32)
    Path(sealed, "new").touch()
    return "cleared"


@attempt("EROFS EACCES", scenes="base_folders")
def write_to_base(folders: list[str]) -> str:
    """Create a file in one of the folders that the image brings; the last error counts."""
    made = []
    for folder in folders:
        try:
            Path(folder, "immure-was-here").touch()
            made.append(folder)
        except OSError as error:
            last = error
    if not made:
        raise last
    return str(made)
