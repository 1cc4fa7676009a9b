"""What folders hold, as a hash of what their files are, without reading them."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from hashlib import sha256

from immure.host.native import native_program


def content_sha256(folder: str) -> str:
    """The same as long as nothing in it is changed, made or taken away.

    Files count with their kind, mode, owner, size and the time of their last change, which nobody can set; links with
    where they lead, and none is followed. Raises OSError.
    """
    digest = sha256()
    for path, seen, leads_to in _walk(folder):
        mode = seen.st_mode
        size = seen.st_size if stat.S_ISREG(mode) else 0
        what = (path, mode, seen.st_uid, seen.st_gid, size, seen.st_ctime_ns, seen.st_rdev, leads_to)
        digest.update(repr(what).encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


def quick_content(folders: Sequence[str]) -> str:
    """The same in a tenth of the time, for folders that nobody makes in order to deceive: this host's own.

    A folder below that this user can't read counts by itself alone. Raises OSError.
    """
    done = subprocess.run(
        [native_program(), "content", *folders],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise OSError(0, done.stderr.strip(), " ".join(folders))
    return done.stdout.strip()


def _walk(folder: str) -> Iterator[tuple[str, os.stat_result, str]]:
    """Everything below, in an order of its own names."""
    left = [""]
    while left:
        above = left.pop()
        with os.scandir(os.path.join(folder, above)) as found:  # noqa: PTH118
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            path = f"{above}/{entry.name}" if above else entry.name
            leads_to = os.readlink(entry.path) if entry.is_symlink() else ""  # noqa: PTH115
            yield path, entry.stat(follow_symlinks=False), leads_to
            if entry.is_dir(follow_symlinks=False):
                left.append(path)
