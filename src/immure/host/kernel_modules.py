"""The modules that a distribution's kernel needs before it sees a machine's devices and file systems.

Sources: Documentation/arch/x86/boot.rst (`kernel_version`), Documentation/kbuild/kbuild.rst (`modules.builtin`), and
what each module says of itself in its section `.modinfo`.
"""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import subprocess
from pathlib import Path

from immure.host.facts import Missing

#: A machine's devices, and what its root is made of. One that is built in is no module.
NEEDED = ("virtio_mmio", "virtio_blk", "virtio_console", "erofs", "overlay")
#: The file system of a machine's own disk.
DISK_S = "ext4"
_WITHOUT_DISK = "name another one by IMMURE_KERNEL, or leave disk_mib out"
#: What is of use where it is there.
_WELCOME = ("virtio_rng",)
_SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")
#: The header of a bzImage has less.
_HEADER_BYTES = 64 << 10


def modules_of(kernel: str, *, with_disk: bool = False) -> tuple[str, ...] | Missing:
    """Paths of the modules to load, in their order; none for a kernel that has no folder of modules. `with_disk` is for
    a machine with a disk of its own.

    Raises OSError for what can't be read.
    """
    tree = _tree_of(Path(kernel))
    if tree is None:
        return ()
    built_in = {_name_of(line) for line in (tree / "modules.builtin").read_text().split()}
    found = {_name_of(path.name): path for path in tree.rglob("*.ko*") if path.name.endswith(_SUFFIXES)}
    needed = (*NEEDED, DISK_S) if with_disk else NEEDED
    lacking = [name for name in needed if name not in built_in and name not in found]
    if lacking:
        need, have = f"a kernel for guests with {', '.join(lacking)}", f"{kernel}, with what is in {tree}"
        return Missing(need=need, have=have, command=_WITHOUT_DISK if lacking == [DISK_S] else None)
    order: list[str] = []
    for name in (*needed, *_WELCOME):
        _put(name, found, built_in, order)
    return tuple(str(found[name]) for name in order)


def has_modules(kernel: str) -> bool:
    """Whether it has modules, and all that are needed of them. One that can't be read has none."""
    try:
        found = modules_of(kernel)
    except (OSError, ValueError):
        return False
    return not isinstance(found, Missing) and bool(found)


def module_content(path: str) -> bytes:
    """A module as the kernel takes it. Raises OSError, and ValueError where it can't be unpacked."""
    content = Path(path).read_bytes()
    try:
        if path.endswith(".xz"):
            content = lzma.decompress(content)
        elif path.endswith(".gz"):
            content = gzip.decompress(content)
        elif path.endswith(".zst"):
            content = _by_zstd(path)
    except (lzma.LZMAError, EOFError, subprocess.SubprocessError) as error:
        raise ValueError(f"{path} can't be unpacked: {error}") from error
    return content


def _by_zstd(path: str) -> bytes:
    program = shutil.which("zstd")
    if program is None:
        raise ValueError(f"{path} is packed by zstd, and there is no program of that name")
    return subprocess.run([program, "-dcq", path], capture_output=True, check=True).stdout


def _put(
    name: str, found: dict[str, Path], built_in: set[str], order: list[str], under_way: tuple[str, ...] = ()
) -> None:
    """A module after those that it depends on."""
    if name in built_in or name in order or name not in found or name in under_way:
        return
    for other in _dependencies(module_content(str(found[name]))):
        # A softer one may be known by what it does.
        for candidate in (other, f"{other}_generic"):
            _put(candidate, found, built_in, order, (*under_way, name))
    order.append(name)


def _dependencies(content: bytes) -> list[str]:
    names: list[str] = []
    for word in (b"\0depends=", b"\0softdep=pre: "):
        begin = content.find(word)
        if begin >= 0:
            begin += len(word)
            told = content[begin : content.index(b"\0", begin)].decode("ascii", "replace")
            names += [_name_of(one) for one in told.replace(",", " ").split() if not one.endswith(":")]
    return names


def _tree_of(kernel: Path) -> Path | None:
    """The folder with its modules: beside it, of the tree that it was unpacked in, or this host's."""
    version = _version_of(kernel)
    if version is None:
        return None
    above = kernel.parent.parent
    places = (kernel.parent, *(base / "lib/modules" / version for base in (above, above / "usr", Path("/"))))
    return next((place for place in places if (place / "modules.builtin").is_file()), None)


def _version_of(kernel: Path) -> str | None:
    """A bzImage's."""
    with kernel.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if header[0x202:0x206] != b"HdrS":
        return None
    place = struct.unpack_from("<H", header, 0x20E)[0] + 0x200
    return header[place:].split(b"\0")[0].split(b" ")[0].decode("ascii", "replace") or None


def _name_of(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_")
