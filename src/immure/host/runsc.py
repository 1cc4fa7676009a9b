"""Finds gVisor's program, and what it is. Read once for each content."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

from immure.host.facts import Missing, ProgramFacts

#: Names the program where it is not on PATH.
SETTING = "IMMURE_RUNSC"
_HOW = "put a static runsc on PATH (Debian 13: apt install runsc), or name it by IMMURE_RUNSC"
_LEAST_DATE = 20_240_101
_PT_INTERP = 3
_TIMEOUT_S = 20.0

_known: dict[tuple[object, ...], ProgramFacts | Missing] = {}


def find_runsc() -> ProgramFacts | Missing:
    """The program, or what is wrong with what is there."""
    named = os.environ.get(SETTING)
    path = named or shutil.which("runsc")
    if path is None:
        return Missing(need="gVisor's runsc", have="none on PATH", command=_HOW)
    path = os.path.abspath(path)  # noqa: PTH100
    try:
        found = Path(path).stat()
    except OSError as error:
        return Missing(need="gVisor's runsc", have=f"{path}: {error.strerror}", command=_HOW)
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    key = (path, os.geteuid(), *identity)
    if key not in _known:
        _known[key] = _look_at(path, identity)
    return _known[key]


def _look_at(path: str, identity: tuple[int, ...]) -> ProgramFacts | Missing:
    if not os.access(path, os.X_OK):
        return Missing(need="a runsc that this user can execute", have=path, command=f"chmod a+rx {path}")
    try:
        dynamic = _is_dynamic(path)
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, ValueError, struct.error, subprocess.SubprocessError) as error:
        return Missing(need="gVisor's runsc", have=f"{path} does not answer --version ({error})", command=_HOW)
    version = re.match(r"runsc version (\S+)", said.stdout)
    if version is None:
        return Missing(need="gVisor's runsc", have=f"{path} is another program", command=_HOW)
    if dynamic:
        # It would look for its libraries in a root that has none.
        command = "build it with CGO_ENABLED=0"
        return Missing(need="a static runsc", have=f"{path} is linked dynamically", command=command)
    date = re.search(r"20\d{6}", version[1])
    if date is not None and int(date[0]) < _LEAST_DATE:
        return Missing(need=f"a runsc from {_LEAST_DATE} on", have=f"{path} of {date[0]}", command=_HOW)
    return ProgramFacts(path=path, version=version[1], identity=identity)


def _is_dynamic(path: str) -> bool:
    """Whether an ELF file of 64 bits names an interpreter. Raises ValueError for another file. elf(5)."""
    with Path(path).open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            raise ValueError("no program of this machine")
        (start,), (size, count) = struct.unpack_from("<Q", header, 32), struct.unpack_from("<HH", header, 54)
        file.seek(start)
        table = file.read(size * count)
    return any(struct.unpack_from("<I", table, number * size)[0] == _PT_INTERP for number in range(count))
