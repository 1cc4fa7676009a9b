"""The disk of a machine's own: a file of this host's that never has a name which outlives its making, and so is gone
with the last who has it open, however that ends.

Sources: open(2) on O_TMPFILE, mke2fs(8).
"""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from immure.errors import SetupFailed
from immure.plan.launch import Launch
from immure.runtimes.guest.memory import copy_content

_STEP = "disk"
#: Of file systems without nameless files: open(2).
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
#: Of one that has a name, for a moment.
_PREFIX = ".immure-disk-"
_SAME = "00000000-0000-4000-8000-000000000000"
#: Without a journal, since nothing is to last; without checksums, which an emulated processor makes slowly.
_FEATURES = (
    *("none", "extent", "filetype", "dir_index", "dir_nlink", "extra_isize", "sparse_super"),
    *("large_file", "huge_file", "flex_bg", "uninit_bg", "64bit"),
)
#: As many inodes as a tmpfs of this size may have, none of them written before it is used, and nothing kept for root.
#: The same content for the same size, whatever this host's mke2fs.conf says.
_FORMAT = (
    *("-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "4096", "-m", "0", "-O", ",".join(_FEATURES)),
    *("-E", f"lazy_itable_init=1,nodiscard,root_owner=0:0,hash_seed={_SAME}", "-U", _SAME),
)
_ENVIRONMENT = {"MKE2FS_CONFIG": "/dev/null", "E2FSPROGS_FAKE_TIME": "1", "LC_ALL": "C"}
_FORMAT_S = 60.0
_MOST_SAID = 1000


def new_disk(launch: Launch) -> int | None:
    """A descriptor of a formatted one, None for a machine that has none. Raises SetupFailed."""
    disk = empty_disk(launch)
    if disk is None or launch.disk is None:
        return None
    try:
        _format(disk, launch.disk[2])
    except BaseException:
        os.close(disk)
        raise
    return disk


def empty_disk(launch: Launch) -> int | None:
    """The same with nothing on it. Raises SetupFailed where this host has no room for all of it."""
    if launch.disk is None:
        return None
    size, folder, _ = launch.disk
    try:
        _check_room(folder, size)
        disk = _nameless(folder)
        try:
            # In an outer box it is opened anew by somebody who is nobody here. Nobody else has a way to it.
            os.fchmod(disk, 0o666)
            os.ftruncate(disk, size)
        except BaseException:
            os.close(disk)
            raise
    except OSError as error:
        raise _failed(folder, size, os.strerror(error.errno or 0), error.errno or 0) from error
    return disk


def copied_disk(source: int, launch: Launch) -> int | None:
    """A new one with the content of another, which nobody writes meanwhile. Raises SetupFailed."""
    disk = empty_disk(launch)
    if disk is not None:
        try:
            fill_disk(source, disk)
        except BaseException:
            os.close(disk)
            raise
    return disk


@contextmanager
def closing(fd: int | None) -> Generator[int | None]:
    """A descriptor, if there is one, for as long as it is needed."""
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def fill_disk(source: int, disk: int) -> None:
    """Copies the content of one, which nobody writes meanwhile, to another that is empty. Raises SetupFailed."""
    try:
        copy_content(source, disk)
    except OSError as error:
        raise SetupFailed(
            "the machine's disk can't be copied",
            step=_STEP,
            errno=error.errno or 0,
            have=os.strerror(error.errno or 0),
            hint="a copy takes as much room as what is on it: make some, or name another folder by IMMURE_DISKS",
        ) from error


def _check_room(folder: str, size: int) -> None:
    """What is not taken yet may be taken by others later: the guest hears of it then."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < size:
        raise _failed(folder, size, f"{free >> 20} MiB free in {folder}", errno.ENOSPC)


def _nameless(folder: str) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(folder, flags | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in _NO_NAMELESS:
            raise
    disk, _ = tempfile.mkstemp(dir=folder, prefix=_PREFIX)
    # Those too of callers who were killed at this moment. One that somebody makes just now needs its name no more.
    for path in Path(folder).glob(f"{_PREFIX}*"):
        path.unlink(missing_ok=True)
    return disk


def _format(disk: int, formatter: str) -> None:
    try:
        said = subprocess.run(
            [formatter, *_FORMAT, f"/proc/self/fd/{disk}"],
            pass_fds=[disk],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_FORMAT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _unformatted(formatter, str(error)) from error
    if said.returncode:
        raise _unformatted(formatter, (said.stderr or said.stdout).decode(errors="replace").strip()[-_MOST_SAID:])


def _unformatted(formatter: str, have: str) -> SetupFailed:
    return SetupFailed(
        "the machine's disk can't be formatted",
        step=_STEP,
        need=f"a {formatter} that makes ext4",
        have=have,
        hint="install e2fsprogs, or leave disk_mib out",
    )


def _failed(folder: str, size: int, have: str, number: int) -> SetupFailed:
    return SetupFailed(
        "the machine's disk can't be made",
        step=_STEP,
        errno=number,
        need=f"{size >> 20} MiB in {folder}",
        have=have,
        hint="a smaller disk_mib, or IMMURE_DISKS with a folder on a disk that has room",
    )
