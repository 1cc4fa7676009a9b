"""Finds where disks of machines' own are to be, and what formats them."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from immure.host.facts import DiskFacts, Missing

#: Names one to make it in, where the usual one has too little room or is not on a disk.
FOLDER_SETTING = "IMMURE_DISKS"
FORMATTER = "mke2fs"
_GET_FORMATTER = "install it (Debian, Fedora: e2fsprogs), or leave disk_mib out"
_OTHER_FOLDER = f"name a folder on a disk by {FOLDER_SETTING}, or leave disk_mib out"
#: A plain user's PATH is often without them.
_SYSTEM_S = ("/usr/sbin", "/sbin")
#: What is in them is in memory.
_NO_DISKS = ("tmpfs", "ramfs")


def find_disks(usual: str | None) -> DiskFacts | Missing:
    """How disks are made on this host: in a folder of this user's alone below the named one, or in the `usual` one. It
    is made where it is missing.
    """
    formatter = _formatter()
    if formatter is None:
        need = f"{FORMATTER}, which formats the disk of a machine with disk_mib"
        return Missing(need=need, have="none in PATH", command=_GET_FORMATTER)
    need = "a folder of this user's own for the disk of a machine with disk_mib"
    named = os.environ.get(FOLDER_SETTING)
    if not named and usual is None:
        return Missing(need=need, have="none that can be made or trusted", command=_OTHER_FOLDER)
    folder = str(Path(named, f"immure-{os.geteuid()}")) if named else str(usual)
    try:
        Path(folder).mkdir(mode=0o700, exist_ok=True)
        if not _is_own(folder):
            return Missing(need=need, have=f"{folder}, which others may enter", command=_OTHER_FOLDER)
        kind = _file_system(folder)
    except OSError as error:
        return Missing(need=need, have=f"{folder}: {os.strerror(error.errno or 0)}", command=_OTHER_FOLDER)
    if kind in _NO_DISKS:
        return Missing(need=need, have=f"{folder}, which is in memory ({kind})", command=_OTHER_FOLDER)
    return DiskFacts(folder=os.path.realpath(folder), formatter=formatter)


def _formatter() -> str | None:
    folders = [*os.get_exec_path(), *_SYSTEM_S]
    return shutil.which(FORMATTER, path=os.pathsep.join(folders))


def _is_own(folder: str) -> bool:
    """Whether nobody else has anything in it: a VMM is shown it, by which it has a file that has no name there."""
    found = Path(folder).lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _file_system(folder: str) -> str | None:
    """The kind of the one that a folder is in, where it is mounted by its device's number. proc(5), mountinfo."""
    device = os.stat(folder).st_dev  # noqa: PTH116
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        mounted, _, rest = line.partition(" - ")
        if mounted.split(" ")[2] == number:
            return rest.split(" ")[0]
    return None
