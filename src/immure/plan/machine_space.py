"""The private space of a machine: in its memory, or where the spec writes `disk_mib` on a disk of its own. Pure.

The disk is a file of this host's with an ext4 file system, whose own records take a part of it: the file is larger by
as much. Sources: Documentation/filesystems/ext4 of Linux (`ext4_calculate_resv_clusters` for what `df` leaves out).
"""

from __future__ import annotations

from collections.abc import Sequence

from immure.host.facts import DiskFacts
from immure.plan.operations import NODEV, NOSUID, Disk, MountNew, Private, RootOp
from immure.plan.root import PRIVATE_SPACE, sized_tmpfs, tmpfs_size
from immure.spec.models import SandboxSpec

#: Where programs share memory: the C library of some distributions takes nothing but a tmpfs for that.
SHARED_MEMORY = "/dev/shm"
#: The disk outlives no box, so that nothing has to survive a power failure; what is removed is given back to the host;
#: and tables of inodes that were never used stay the holes that they are.
OPTIONS = "discard,noinit_itable,errors=remount-ro"
FORMAT = "ext4"
#: In a thousand: tables of inodes and maps of blocks, 1/16 and some more; and what any has, in KiB.
_RECORDS, _ALWAYS_KIB = 1067, 896
#: Ext4 keeps a fiftieth for itself, 16 MiB at most, of which the records are not left out.
_KEPT, _MOST_KEPT_KIB = 48, 17 << 10
_BLOCK_KIB = 4


def disk_bytes(spec: SandboxSpec) -> int:
    """How large the file is that holds the disk of the spec's machine; 0 where that has none."""
    if spec.limits.disk_mib is None:
        return 0
    room_kib = (spec.limits.disk_mib - sized_tmpfs(spec)) << 10
    kib = room_kib * _RECORDS // 1000 + _ALWAYS_KIB
    kib += min(kib // _KEPT, _MOST_KEPT_KIB)
    return -(-kib // _BLOCK_KIB) * _BLOCK_KIB << 10


def disk_of(spec: SandboxSpec, found: DiskFacts | None) -> tuple[int, str, str] | None:
    """How a disk of the machine's own is made, if it has one: bytes, the folder of its file, and what formats it."""
    if spec.limits.disk_mib is None:
        return None
    assert found is not None
    return disk_bytes(spec), found.folder, found.formatter


def shared_memory_mib(spec: SandboxSpec, memory_mib: int) -> int:
    """Of `/dev/shm` beside a disk: half of the machine's memory, as everywhere on Linux, and no more than the disk."""
    assert spec.limits.disk_mib is not None
    return max(1, min(memory_mib // 2, spec.limits.disk_mib))


def on_disk(root: Sequence[RootOp], device: str, shared_mib: int) -> list[RootOp]:
    """The same operations with the private space on a device, but for `/dev/shm`, which is in memory."""
    ops: list[RootOp] = []
    for op in root:
        if not isinstance(op, Private):
            ops.append(op)
            continue
        folders = tuple(folder for folder in op.folders if folder.path != SHARED_MEMORY)
        assert len(folders) == len(PRIVATE_SPACE) - 1
        ops.append(Disk(device=device, kind=FORMAT, options=OPTIONS, flags=NOSUID | NODEV, folders=folders))
        options = f"{tmpfs_size(shared_mib)},mode=1777"
        ops.append(MountNew(kind="tmpfs", path=SHARED_MEMORY, options=options, flags=NOSUID | NODEV))
    return ops
