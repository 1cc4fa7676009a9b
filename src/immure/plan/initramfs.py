"""The root of a machine's first process: an archive that holds it, and the folders that it mounts on. Pure.

Source: Documentation/driver-api/early-userspace/buffer-format.rst (`newc`).
"""

from __future__ import annotations

import stat
from collections.abc import Sequence

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_INIT, _MODULES = "init", "modules"
_FOLDERS = ("dev", "image", "own", "proc", "root", "sys")
#: The kernel opens it for the first process before anything is mounted.
_CONSOLE = ("dev/console", 5, 1)


def initramfs(program: bytes, modules: Sequence[bytes] = ()) -> bytes:
    """An archive in which `program` is `/init`, which loads modules of the kernel's in their order."""
    folders = (*_FOLDERS, _MODULES) if modules else _FOLDERS
    entries = [_entry(name, stat.S_IFDIR | 0o755) for name in folders]
    entries += [
        _entry(f"{_MODULES}/{number:03}", stat.S_IFREG | 0o600, content) for number, content in enumerate(modules)
    ]
    name, major, minor = _CONSOLE
    entries.append(_entry(name, stat.S_IFCHR | 0o600, device=(major, minor)))
    entries.append(_entry(_INIT, stat.S_IFREG | 0o755, program))
    entries.append(_entry(_TRAILER, 0))
    return b"".join(entries)


def _entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    path = name.encode() + b"\0"
    numbers = (
        *(0, mode, 0, 0),  # inode, and owner: root
        *(1, 0, len(content)),  # links, time
        *(0, 0, *device),  # where it was
        *(len(path), 0),  # and no checksum
    )
    header = _MAGIC + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + path) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
