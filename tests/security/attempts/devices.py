"""Devices: making a node, opening the host's, and being given one in a mount."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from security.attempt import attempt
from security.calls import AT_FDCWD, call

_NULL, _LOG = os.makedev(1, 3), os.makedev(1, 11)


@attempt("EPERM EACCES", scenes="workspace", needs_root=True)
def make_character_device(work: str) -> str:
    call("mknod", f"{work}/node".encode(), stat.S_IFCHR | 0o666, _LOG)
    return "made"


@attempt("EPERM EACCES", scenes="workspace disk", needs_root=True)
def make_block_device(work: str, number: int) -> str:
    call("mknod", f"{work}/node".encode(), stat.S_IFBLK | 0o600, number)
    return "made"


@attempt("EPERM EACCES", scenes="workspace", needs_root=True)
def make_device_by_mknodat(work: str) -> str:
    call("mknodat", AT_FDCWD, f"{work}/node".encode(), stat.S_IFCHR | 0o666, _NULL)
    return "made"


@attempt("EPERM EACCES", scenes="scratch", needs_root=True)
def make_device_in_private_space(scratch: str) -> str:
    call("mknod", f"{scratch}/node".encode(), stat.S_IFCHR | 0o666, _LOG)
    return "made"


@attempt("ENOENT EACCES EPERM", scenes="disk", needs_root=True)
def open_disk(disk: str) -> str:
    os.open(disk, os.O_RDONLY)
    return disk


@attempt(
    "ENOENT EACCES EPERM",
    cases={
        name.replace("/", "-"): {"path": f"/dev/{name}"} for name in ("kmsg", "fuse", "net/tun", "tty1", "loop-control")
    },
    needs_root=True,
)
def open_device(path: str) -> str:
    os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return path


@attempt("ENOENT EACCES", scenes="host_terminal")
def open_terminal_of_the_host(terminal: str) -> str:
    os.open(terminal, os.O_RDWR | os.O_NOCTTY)
    return terminal


@attempt("EACCES EPERM", scenes="planted_device", needs_root=True)
def open_device_in_mount(device: str) -> str:
    """Open a device node that lies in a folder which the caller mounts."""
    os.open(device, os.O_RDONLY | os.O_NONBLOCK)
    return device


@attempt("EROFS EACCES EPERM", scenes="device_folder")
def create_in_dev(folder: str) -> str:
    """Put a file where programs look for devices."""
    Path(folder, "immure").write_text("")
    return folder
