"""Folders that somebody needs for a while. A lock says that somebody does, and goes with its holder however that ends:
what a caller who was killed has left is removed by the next one that makes such a folder in the same place.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path


def make_held(above: Path, prefix: str) -> tuple[Path, int]:
    """A private folder of a name that begins so, and the descriptor that holds it. Raises OSError."""
    _sweep(above, prefix)
    while True:
        folder = Path(tempfile.mkdtemp(dir=above, prefix=prefix))
        held = _held(folder)
        if held is not None:
            return folder, held


def let_go(folder: Path, held: int, owner: int) -> None:
    """Removes it, where this is the process that made it; in a forked child the parent's is not touched."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
    os.close(held)


def _held(folder: Path) -> int | None:
    """None where somebody who swept has taken it for one that nobody needs."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    # Who removes it has it locked until then.
    fcntl.flock(fd, fcntl.LOCK_SH)
    if is_at(fd, folder):
        return fd
    os.close(fd)
    return None


def is_at(fd: int, path: Path) -> bool:
    """Whether what is open there is what has that name: who had its lock before may have removed it."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _sweep(above: Path, prefix: str) -> None:
    """Removes those of this user that nobody holds."""
    for folder in above.glob(f"{prefix}*"):
        try:
            found = folder.lstat()
            if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
                continue
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            # Somebody has it.
            pass
        finally:
            os.close(fd)
