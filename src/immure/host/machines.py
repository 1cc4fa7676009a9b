"""Finds what virtual machines are made with: QEMU or Firecracker, and a kernel for their guests."""

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
QEMU_SETTING, FIRECRACKER_SETTING, KERNEL_SETTING = "IMMURE_QEMU", "IMMURE_FIRECRACKER", "IMMURE_KERNEL"
KERNELS = ("/usr/local/share/immure/vmlinux", "/usr/share/immure/vmlinux")
#: The `microvm` with a device for all of the kernel's command line.
_LEAST_QEMU = 5
_TIMEOUT_S = 20.0
#: The first whose snapshots are as they are today.
_LEAST_FIRECRACKER = (1, 10)
_GET_FIRECRACKER = (
    "put `firecracker` of a release (github.com/firecracker-microvm/firecracker/releases) on PATH, "
    f"or name it by {FIRECRACKER_SETTING}"
)
_GET_QEMU = "install it (Debian: qemu-system-x86; Fedora: qemu-system-x86-core), or name it by IMMURE_QEMU"
_GET_KERNEL = (
    "install one (Debian: linux-image-cloud-amd64, which need not be the one that this host runs), "
    f"or name a vmlinux or bzImage by {KERNEL_SETTING}"
)

_known: dict[tuple[object, ...], ProgramFacts | Missing] = {}


def find_qemu() -> ProgramFacts | Missing:
    """The program, or what is wrong with what is there."""
    name = f"qemu-system-{os.uname().machine}"
    version = rb"QEMU emulator version (\d+(?:\.\d+)+)"
    return _found("QEMU", os.environ.get(QEMU_SETTING) or name, version, (_LEAST_QEMU,), _GET_QEMU)


def find_firecracker() -> ProgramFacts | Missing:
    """The program, or what is wrong with what is there."""
    named = os.environ.get(FIRECRACKER_SETTING) or "firecracker"
    return _found("Firecracker", named, rb"Firecracker v(\d+(?:\.\d+)+)", _LEAST_FIRECRACKER, _GET_FIRECRACKER)


def _found(what: str, named: str, version: bytes, least: tuple[int, ...], get: str) -> ProgramFacts | Missing:
    """The program of a name or path, which says its version so, looked at once."""
    path = shutil.which(named)
    if path is None:
        if "/" in named:
            return Missing(need=f"a {what} that this user can execute", have=named, command=get)
        return Missing(need=what, have=f"no {named} on PATH", command=get)
    path = os.path.realpath(path)
    identity = identity_of(path)
    if identity is None:
        return Missing(need=f"a {what} that this user can execute", have=path, command=get)
    key = (what, path, os.geteuid(), *identity)
    if key not in _known:
        _known[key] = _look_at(what, path, identity, version, least, get)
    return _known[key]


def _look_at(
    what: str, path: str, identity: tuple[int, ...], version: bytes, least: tuple[int, ...], get: str
) -> ProgramFacts | Missing:
    try:
        said = subprocess.run([path, "--version"], capture_output=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Missing(need=what, have=f"{path} does not answer --version ({error})", command=get)
    seen = re.match(version, said.stdout)
    if seen is None:
        return Missing(need=what, have=f"{path} is another program", command=get)
    told = seen[1].decode()
    if tuple(int(one) for one in told.split(".")) < least:
        return Missing(need=f"{what} {'.'.join(map(str, least))} or newer", have=told, command=get)
    return ProgramFacts(path=path, version=told, identity=identity)


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
