"""Builds the C programs into bench/build, once for each content of their sources."""

from __future__ import annotations

import compileall
import hashlib
import os
import subprocess
from pathlib import Path

BENCH = Path(__file__).parent
BUILD = BENCH / "build"
# Static: no loader runs before main, and a clone has fewer pages and mappings to copy.
COMMAND = ("cc", "-std=gnu17", "-O2", "-static", "-Wall", "-Wextra")
PROGRAMS = {
    "floor": ("floor.h", "box.c", "command.c", "floor.c", "root.c", "spawner.c", "template.c"),
    "inside": ("inside.c",),
    "poweroff": ("poweroff.c",),
    "receive": ("receive.c",),
    "per_call": ("per_call.c",),
    "vfork_exec": ("vfork_exec.c",),
}


class BuildError(Exception):
    """A C program of the benchmark doesn't compile here."""


def build(program: str) -> Path:
    sources = [BENCH / "floor" / name for name in PROGRAMS[program]]
    output = BUILD / f"{program}-{_digest(sources)}"
    if not output.exists():
        _compile([path for path in sources if path.suffix == ".c"], output)
    return output


def compile_package() -> None:
    """Byte code, as installing a wheel makes it; an editable install in a place or environment without would not."""
    compileall.compile_dir(BENCH.parent / "src" / "immure", quiet=1)


def _digest(sources: list[Path]) -> str:
    digest = hashlib.sha256(" ".join(COMMAND).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(sources: list[Path], output: Path) -> None:
    BUILD.mkdir(exist_ok=True)
    unfinished = output.with_suffix(f".{os.getpid()}")
    try:
        done = subprocess.run([*COMMAND, "-o", unfinished, *sources], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError("cc is missing; install it: apt-get install gcc libc6-dev") from None
    if done.returncode:
        raise BuildError(f"{output.name}: {done.stderr.strip()}")
    unfinished.replace(output)
