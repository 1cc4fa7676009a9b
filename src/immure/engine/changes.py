"""What a machine has changed in the mounts that it writes to, brought back to the folders of this host.

It comes out as an archive, of bounded size, which a box puts on the folder: one that may write there and nowhere else,
so that what the archive says can do no more than a box with that mount could have done.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from immure.engine import oci_unpacking
from immure.engine.image_store import scratch
from immure.engine.local import run
from immure.errors import FileError
from immure.plan.machine_mounts import CHANGES
from immure.plan.root import INODES_PER_MIB
from immure.runtimes.base import Box
from immure.runtimes.guest.outer import UnderWay
from immure.runtimes.process.request import Request

#: Beside the content: headers and padding of archives, by the entry.
_ENTRY_BYTES = 1024
_MOST_WHITEOUTS = 50_000
_BRINGS_S = 600.0
_MADE, _ARCHIVE = "/made", "/archive"
_SAID = 1000


def bring_back(box: Box) -> None:
    """Puts what the box has changed so far into the folders that it has copies of. They win over other changes there.

    Raises FileError, with the folder, where it can't be had or put there, and BoxLost.
    """
    for source, number, place, most_mib in box.launch.changes:
        with scratch("changes") as folder:
            archive = folder / "archive"
            _fetch(box, source, number, place, archive, most_mib)
            _apply(source, archive, most_mib)


def _fetch(box: Box, source: str, number: int, place: str, archive: Path, most_mib: int) -> None:
    parts = (f"{CHANGES}/{number}/upper", f"{CHANGES}/{number}/lower", place)
    request = Request(box.launch, [one.encode() for one in ("files", "changes", *parts)])
    request.workdir, request.timeout_s = "/", _BRINGS_S
    request.output_bytes = (most_mib << 20) + _entries(most_mib) * _ENTRY_BYTES
    with archive.open("xb") as file, UnderWay(box, request, builtin=True, into=file.fileno()) as reading:
        done = reading.ended()
    if done.exit is not None and done.exit.status == 0 and not (done.flooded or done.timed_out):
        return
    said = bytes(done.sinks[1].data).decode(errors="replace").split()
    errno = int(said[0]) if said and said[0].isdecimal() and len(said[0]) < 4 else 0
    have = "more than it has room for" if done.flooded else "no answer"
    if errno:
        have = f"{said[-1]}: {os.strerror(errno)}"
    raise FileError(
        f"what the box has changed in {source} can't be had",
        path=source,
        errno=errno,
        need=f"{most_mib} MiB at most (disk_mib), which the box's user can read",
        have=have,
    )


def _apply(source: str, archive: Path, most_mib: int) -> None:
    task = {
        "archive": _ARCHIVE,
        "target": _MADE,
        "most_bytes": most_mib << 20,
        "most_entries": _entries(most_mib),
    }
    result = run(
        [sys.executable, "-I", "-S", "-B", "-c", Path(oci_unpacking.__file__).read_text(), json.dumps(task)],
        preset="python",
        mounts=[(source, _MADE, "rw"), (str(archive), _ARCHIVE, "ro")],
        timeout_s=_BRINGS_S,
    )
    if not result.ok:
        raise FileError(
            f"what the box has changed can't be brought back to {source}",
            path=source,
            errno=0,
            need="a folder that this user can write to, with room for it",
            have=result.stderr.text().strip()[-_SAID:] or str(result.exit),
        )


def _entries(most_mib: int) -> int:
    """As many as there are inodes, and a whiteout for what each could have taken the place of."""
    return most_mib * INODES_PER_MIB + _MOST_WHITEOUTS
