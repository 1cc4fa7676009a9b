"""Finds what virtual machines are made with: QEMU, and a kernel for their guests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from immure.host.facts import Missing, ProgramFacts
from immure.host.identity import identity_of
from immure.host.kernel_modules import has_modules

#: Name them where they are not in their usual places.
QEMU_SETTING, KERNEL_SETTING = "IMMURE_QEMU", "IMMURE_KERNEL"
KERNELS = ("/usr/local/share/immure/vmlinux", "/usr/share/immure/vmlinux")
#: The `microvm` with a device for all of the kernel's command line.
_LEAST_QEMU = 5
_TIMEOUT_S = 20.0
_GET_QEMU = "install it (Debian: qemu-system-x86; Fedora: qemu-system-x86-core), or name it by IMMURE_QEMU"
_GET_KERNEL = (
    "install one (Debian: linux-image-cloud-amd64, which need not be the one that this host runs), "
    f"or name a vmlinux or bzImage by {KERNEL_SETTING}"
)

_known: dict[tuple[object, ...], ProgramFacts | Missing] = {}


def find_qemu() -> ProgramFacts | Missing:
    """The program, or what is wrong with what is there."""
    name = f"qemu-system-{os.uname().machine}"
    path = os.environ.get(QEMU_SETTING) or shutil.which(name)
    if path is None:
        return Missing(need="QEMU", have=f"no {name} on PATH", command=_GET_QEMU)
    path = os.path.realpath(path)
    identity = identity_of(path)
    if identity is None or not os.access(path, os.X_OK):
        return Missing(need="a QEMU that this user can execute", have=path, command=_GET_QEMU)
    key = (path, os.geteuid(), *identity)
    if key not in _known:
        _known[key] = _look_at(path, identity)
    return _known[key]


def _look_at(path: str, identity: tuple[int, ...]) -> ProgramFacts | Missing:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Missing(need="QEMU", have=f"{path} does not answer --version ({error})", command=_GET_QEMU)
    version = re.match(r"QEMU emulator version (\d+)(\.[\d.]+)", said.stdout)
    if version is None:
        return Missing(need="QEMU", have=f"{path} is another program", command=_GET_QEMU)
    if int(version[1]) < _LEAST_QEMU:
        return Missing(need=f"QEMU {_LEAST_QEMU} or newer", have=version[1] + version[2], command=_GET_QEMU)
    return ProgramFacts(path=path, version=version[1] + version[2], identity=identity)


def _installed() -> list[str]:
    """Kernels of the distribution's: one for virtual machines first, and the newest first."""
    found = [path for path in Path("/boot").glob("vmlinuz-*") if has_modules(str(path))]
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    return [str(path) for path in sorted(newest, key=lambda path: "cloud" not in path.name)]


def find_kernel() -> ProgramFacts | Missing:
    """A kernel for guests. Which one it is, is seen when it answers."""
    named = os.environ.get(KERNEL_SETTING)
    for path in (named,) if named else (*KERNELS, *_installed()):
        identity = identity_of(path)
        if identity is not None and Path(path).is_file() and os.access(path, os.R_OK):
            return ProgramFacts(path=os.path.realpath(path), version="", identity=identity)
    have = f"{named}, which is no file that this user can read" if named else "none in its places"
    return Missing(need="a kernel for the guests of machines", have=have, command=_GET_KERNEL)
