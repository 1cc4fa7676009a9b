"""What goes into the box: a copy of the attempts that every user may read, and the compiled programs."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent


@cache
def _session_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="immure-attempts-")
    Path(folder.name).chmod(0o755)
    return folder


@cache
def copied_attempts() -> Path:
    """A folder with the package `security` in it, without what only the host needs."""
    root = Path(_session_folder().name) / "attempts"
    package = root / HERE.name
    (package / "attempts").mkdir(parents=True)
    for path in (*HERE.glob("*.py"), *HERE.glob("attempts/*.py")):
        shutil.copy(path, package / path.relative_to(HERE))
    return root


@cache
def built_programs() -> Path:
    """Static, and at fixed low addresses: the 32-bit entry takes 32 bits of each."""
    folder = Path(_session_folder().name) / "programs"
    folder.mkdir()
    for source in (HERE / "programs").glob("*.c"):
        output = folder / source.stem
        subprocess.run(["gcc", "-O1", "-Wall", "-static", "-no-pie", "-o", output, source], check=True)
    return folder
