"""`immure cp`: files and folders into a kept box, and out of one."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from immure.engine.files import Files
from immure.engine.keeper.kept import KeptSandbox
from immure.errors import FileError, SpecError


def copy(options: Namespace) -> int:
    """Carries it out and gives the exit status. Raises ImmureError."""
    source, target = _split(options.source), _split(options.target)
    if (source is None) == (target is None):
        raise SpecError(
            "one of both is in a box", path="SRC, DST", need="BOX:PATH and a path here (./ before one with a colon)"
        )
    try:
        if source is not None:
            _out(KeptSandbox.attach(source[0]).files, source[1], options.target, options.max_mib << 20)
        elif target is not None:
            _into(KeptSandbox.attach(target[0]).files, options.source, target[1])
    except OSError as error:
        raise SpecError(
            f"{error.filename or 'it'} can't be read or written here",
            path="SRC, DST",
            have=error.strerror or str(error),
        ) from error
    return 0


def _split(word: str) -> tuple[str, str] | None:
    """A box and a path in it. A path here may have a colon after a slash."""
    box, colon, path = word.partition(":")
    return (box, path or ".") if colon and box and "/" not in box else None


def _into(files: Files, source: str, path: str) -> None:
    if source == "-":
        return files.write(path, sys.stdin.buffer)
    # As cp does: into a folder that is there, under its own name.
    if path.endswith("/") or _is_folder(files, path):
        path = f"{path.rstrip('/')}/{_own_name(source)}"
    return files.upload(source, path)


def _out(files: Files, path: str, target: str, max_bytes: int) -> None:
    if target == "-":
        files.read_into(path, sys.stdout.buffer, max_bytes=max_bytes)
        sys.stdout.buffer.flush()
        return
    if target.endswith("/") or Path(target).is_dir():
        target = str(Path(target) / _own_name(path))
    files.download(path, target, max_bytes=max_bytes)


def _own_name(path: str) -> str:
    name = os.path.basename(os.path.normpath(path))  # noqa: PTH119
    if name in ("", ".", "..", "/"):
        raise SpecError("the copy needs a name", path="DST", need="a path that ends with one", have=repr(path))
    return name


def _is_folder(files: Files, path: str) -> bool:
    try:
        return files.stat(path).kind == "folder"
    except FileError as error:
        if error.errno in (2, 20):
            return False
        raise
