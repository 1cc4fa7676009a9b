"""Mounting by the old calls and by the new ones."""

from __future__ import annotations

import ctypes

from security.attempt import Outside, attempt, granted_by
from security.calls import AT_FDCWD, call

_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_OPEN_TREE_CLONE = 1
_DENIED_NEW = "EPERM ENOSYS"


@attempt(
    "EPERM",
    scenes="scratch",
    cases={kind: {"kind": kind} for kind in ("tmpfs", "ramfs")},
    outside=Outside.OWN_MOUNTS,
)
def mount_new(scratch: str, kind: str) -> str:
    call("mount", b"none", scratch.encode(), kind.encode(), 0, None)
    return kind


@attempt(
    "EPERM",
    scenes="scratch",
    cases={kind: {"kind": kind} for kind in ("proc", "sysfs", "devtmpfs", "debugfs", "cgroup2")},
    outside=Outside.OWN_MOUNTS,
    needs_root=True,
)
def mount_kernel_view(scratch: str, kind: str) -> str:
    """Mount a view of the kernel's that isn't masked."""
    call("mount", b"none", scratch.encode(), kind.encode(), 0, None)
    return kind


@attempt("EPERM EACCES ENOENT", scenes="scratch disk", outside=Outside.OWN_MOUNTS, needs_root=True)
def mount_disk(scratch: str, disk: str) -> str:
    """A disk in use says EBUSY, one without ext4 another error, after the right has been checked."""
    with granted_by("EBUSY", "EINVAL", "EIO", "ENXIO"):
        call("mount", disk.encode(), scratch.encode(), b"ext4", 1, None)
    return disk


@attempt("EPERM", scenes="scratch", outside=Outside.OWN_MOUNTS)
def bind(scratch: str) -> str:
    call("mount", b"/", scratch.encode(), None, _MS_BIND | _MS_REC, None)
    return "bound"


@attempt("EPERM", outside=Outside.OWN_MOUNTS)
def change_propagation() -> str:
    call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)
    return "changed"


@attempt("EPERM", scenes="scratch", outside=Outside.OWN_MOUNTS)
def pivot_root(scratch: str) -> str:
    """The same folder twice is EBUSY or EINVAL, after the right has been checked."""
    with granted_by("EBUSY", "EINVAL"):
        call("pivot_root", scratch.encode(), scratch.encode())
    return "pivoted"


@attempt(_DENIED_NEW, outside=Outside.OWN_MOUNTS)
def open_file_system() -> str:
    return f"descriptor {call('fsopen', b'tmpfs', 0)}"


@attempt(_DENIED_NEW, outside=Outside.OWN_MOUNTS)
def pick_file_system() -> str:
    return f"descriptor {call('fspick', AT_FDCWD, b'/', 0)}"


@attempt(_DENIED_NEW, outside=Outside.OWN_MOUNTS)
def clone_tree() -> str:
    return f"descriptor {call('open_tree', AT_FDCWD, b'/usr', _OPEN_TREE_CLONE | 0x8000)}"


@attempt(_DENIED_NEW, scenes="scratch", outside=Outside.OWN_MOUNTS)
def move_mount(scratch: str) -> str:
    """The source is no mount: EINVAL, after the right has been checked."""
    with granted_by("EINVAL"):
        call("move_mount", AT_FDCWD, scratch.encode(), AT_FDCWD, scratch.encode(), 0)
    return "moved"


@attempt(_DENIED_NEW, outside=Outside.OWN_MOUNTS)
def set_mount_attributes() -> str:
    """Make every mount's access times lazy: harmless, and allowed to whoever may mount."""
    attributes = (ctypes.c_uint64 * 4)(0, 0, _MS_PRIVATE, 0)
    call("mount_setattr", AT_FDCWD, b"/", 0, attributes, 32)
    return "set"
