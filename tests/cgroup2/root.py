"""The guest's root file system: this interpreter, the packages that tests need, this checkout, and a few programs.

Everything has the path that it has here, but for packages and checkout, which every user of the guest may read.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest

from runscs import runsc_of

CHECKOUT = Path(__file__).parents[2]
#: In the guest.
IMMURE, PACKAGES, KERNEL = "/immure", "/packages", "/opt/vmlinux"
#: A user's own manager, and its units.
SYSTEMD = "/lib/systemd/systemd"
_UNITS = Path("/usr/lib/systemd/user")
#: What scenes and boxes run.
PROGRAMS = (
    *("bash", "busybox", "cat", "cut", "dd", "dash", "du", "env", "id", "ls", "mkdir", "mkfs.erofs", "mkswap", "mount"),
    *("qemu-system-x86_64", "seq", "setsid", "sh", "sleep", "strace", "swapon", "systemctl", "systemd-run", SYSTEMD),
    *("tr", "true", "umount"),
)
#: Of QEMU, what a microvm needs of its libraries and firmware.
_OF_QEMU = (
    "/usr/lib/*/qemu/accel-*",
    "/usr/share/qemu/*microvm*",
    "/usr/share/qemu/linuxboot*",
    "/usr/share/qemu/pvh*",
)
_NEEDED = ("msgspec", "pytest", "pytest-timeout", "pyyaml", "rich", "tomli-w")
_FOLDERS = ("dev", "etc", "home", "proc", "run", "sys", "tmp", "var/tmp", IMMURE[1:], PACKAGES[1:])
_FILES = {
    "etc/passwd": "root:x:0:0::/:\nplain:x:1000:1000::/home/plain:\nranges:x:1001:1001::/home/ranges:\n",
    "etc/group": "root:x:0:\nplain:x:1000:\nranges:x:1001:\n",
    "etc/subuid": "ranges:300000:65536\n",
    "etc/subgid": "ranges:300000:65536\n",
}
_LEFT_OUT = ("test", "tests", "idlelib", "ensurepip", "site-packages", "dist-packages", "config-*", "*.a")
_LIBRARY = re.compile(r"(/\S+) \(0x")


def build_root(folder: Path, kernel: Path) -> None:
    """Fills an empty folder; machines in the guest boot that kernel. Skips where a program is missing."""
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        if Path("/", name).is_symlink():
            (folder / name).symlink_to(Path("/", name).readlink())
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, content in _FILES.items():
        (folder / name).write_text(content)
    of_qemu = [one for pattern in _OF_QEMU for one in Path("/").glob(pattern[1:])]
    binaries = [*_programs(), *_interpreters(), runsc_of("newest"), *of_qemu]
    for path in (*binaries, Path("/etc/ld.so.cache")):
        _put(path, folder)
    for source in {*_standard_libraries()}:
        _put_tree(source, folder / str(source)[1:], _LEFT_OUT)
    (folder / KERNEL[1:]).parent.mkdir()
    shutil.copy2(kernel, folder / KERNEL[1:])
    _put_tree(_UNITS, folder / str(_UNITS)[1:], ())
    for found in {one.metadata["Name"]: one for one in _distributions(_NEEDED)}.values():
        _put_package(found, folder / PACKAGES[1:])
    for name in ("src", "tests"):
        _put_tree(CHECKOUT / name, folder / IMMURE[1:] / name, ("__pycache__",))
    shutil.copy2(CHECKOUT / "pyproject.toml", folder / IMMURE[1:])
    for library in _libraries([*binaries, *folder.rglob("*.so")]):
        _put(library, folder)
    # An emulated processor takes long to do it.
    compileall.compile_dir(folder / IMMURE[1:], quiet=2)


def pack(folder: Path, image: Path) -> None:
    """One file of what is there, everything root's. Modules keep their times, or they would be compiled anew."""
    subprocess.run(["mkfs.erofs", "--quiet", "-x-1", "--all-root", "--preserve-mtime", image, folder], check=True)


def _programs() -> Iterator[Path]:
    for name in (*PROGRAMS, "newuidmap", "newgidmap"):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed: tools/install_test_packages.sh")
        yield Path(found)


def _interpreters() -> tuple[Path, ...]:
    """This one, and that of boxes' own programs."""
    return interpreter(), Path("/usr/bin/python3")


def interpreter() -> Path:
    """The one that a virtual environment was made of."""
    return Path(sys._base_executable).resolve()  # type: ignore[attr-defined]


def _standard_libraries() -> Iterator[Path]:
    yield Path(sysconfig.get_path("stdlib"))
    for program in _interpreters():
        words = [program, "-I", "-S", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]
        yield Path(subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip())


def _distributions(names: Iterable[str]) -> Iterator[Distribution]:
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            # Of another platform or version, as its marker says.
            continue
        yield found
        plain = [one for one in found.requires or () if "extra ==" not in one]
        yield from _distributions(match[0] for one in plain if (match := re.match(r"[\w.-]+", one)))


def _put_package(found: Distribution, folder: Path) -> None:
    for file in found.files or ():
        source = Path(str(file.locate()))
        if ".." not in file.parts and source.is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / file)


def _put_tree(source: Path, target: Path, left_out: tuple[str, ...]) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*left_out), dirs_exist_ok=True)


def _put(path: Path, folder: Path) -> None:
    """A file, and the link that leads to it."""
    real = path.resolve()
    target = folder / str(real)[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(real, target)
    # Its folder may be a link too, of which the guest has those at the top.
    link = folder / str(path.parent.resolve() / path.name)[1:]
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(real)


def _libraries(binaries: list[Path]) -> set[Path]:
    """What the loader would take for them. Of a static one it says so, and fails."""
    said = subprocess.run(["ldd", *map(os.path.realpath, binaries)], capture_output=True, text=True).stdout
    return {Path(name) for name in _LIBRARY.findall(said)}
