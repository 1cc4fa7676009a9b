"""An image for machines in which attempts can be made: a Python of this host, and the attempts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from security.build import copied_attempts

PYTHON = "/usr/bin/python3"
_UNUSED = ("test", "idlelib", "lib2to3", "ensurepip", "tkinter", "__pycache__", "dist-packages", "config-*")


def make_python_image(folder: Path) -> Path:
    """The folder, with the interpreter, what it loads, and `/attempts`."""
    interpreter = Path(PYTHON).resolve()
    library = Path("/usr/lib", interpreter.name)
    for name in ("usr/bin", "usr/lib", "etc"):
        (folder / name).mkdir(parents=True)
    shutil.copy(interpreter, folder / "usr/bin/python3")
    shutil.copytree(library, folder / "usr/lib" / library.name, symlinks=True, ignore=shutil.ignore_patterns(*_UNUSED))
    modules = (folder / "usr/lib" / library.name / "lib-dynload").glob("*.so")
    for path in {found for program in (interpreter, *modules) for found in _loaded(program)}:
        place = folder / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            shutil.copy(path, place)
    (folder / "bin").symlink_to("usr/bin")
    shutil.copy(str(shutil.which("busybox")), folder / "usr/bin/busybox")
    (folder / "usr/bin/sh").symlink_to("busybox")
    (folder / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    shutil.copytree(copied_attempts(), folder / "attempts")
    return folder


def _loaded(program: Path) -> list[str]:
    """Where the loader finds what it is linked with."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", told)
