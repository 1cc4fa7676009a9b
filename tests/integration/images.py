"""A small root file system to make boxes of: a static busybox, and what a root usually has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

_TOOLS = (
    "sh",
    "cat",
    "ls",
    "id",
    "touch",
    "mkdir",
    "rm",
    "ln",
    "echo",
    "dd",
    "chmod",
    "true",
    "env",
    "readlink",
    "pwd",
)


def make_root(place: Path) -> Path:
    """The folder, with a root file system in it. Skips the test where there is no busybox to make it of."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    for name in ("bin", "etc", "usr/share", "var/lib", "var/tmp", "opt", "lib"):
        (place / name).mkdir(parents=True)
    shutil.copy(busybox, place / "bin" / "busybox")
    (place / "bin" / "busybox").chmod(0o755)
    for name in _TOOLS:
        (place / "bin" / name).symlink_to("busybox")
    (place / "sbin").symlink_to("bin")
    (place / "var" / "run").symlink_to("/run")
    (place / "etc" / "passwd").write_text("root:x:0:0:root of the image:/:/bin/sh\n")
    (place / "etc" / "os-release").write_text("ID=made-for-a-test\n")
    (place / "readme").write_text("at the top\n")
    return place
