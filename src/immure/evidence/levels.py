"""Definitions 8.1 and 8.2 of the specification: which parts must hold for which level. Pure, total, monotone.

Standard library only: every box passes through here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from typing import Literal

    Boundary = Literal["kernel", "user_kernel", "vm"]

#: What can hold of a box. The first word is the part of the 4-tuple, or `identity`.
L1_PARTS = frozenset({"syscalls.default_deny", "identity.no_new_privs", "identity.capabilities"})
L2_PARTS = L1_PARTS | {
    "files.mac",
    "files.mount_namespace",
    "network.namespace",
    "processes.pid_namespace",
    "processes.ipc_namespace",
    "processes.uts_namespace",
    "identity.user_namespace",
    "identity.no_host_root",
}
#: What runs the workload's system calls, from the weakest to the strongest.
BOUNDARIES = ("kernel", "user_kernel", "vm")


def boundary_of(held: frozenset[str]) -> Boundary:
    """What was seen to run the workload's system calls."""
    if "kernel.machine" in held:
        return "vm"
    return "user_kernel" if "kernel.user_space" in held else "kernel"


def has_hardware(held: frozenset[str]) -> bool:
    """Whether the wall of a machine was seen to be the processor's."""
    return {"kernel.machine", "kernel.hardware"} <= held


def award(held: frozenset[str], boundary: str = "kernel", *, hardware: bool = False) -> str:
    """The level that these parts come to.

    `boundary` is one of BOUNDARIES; `hardware` says that a VM's wall is the processor's. More never lowers it.
    """
    if not held >= L1_PARTS:
        return "L0"
    if not held >= L2_PARTS:
        return "L1"
    if boundary == "vm" and hardware:
        return "L4"
    return "L3" if boundary in ("user_kernel", "vm") else "L2"


def capped_by(held: frozenset[str]) -> list[str]:
    """The parts that are missing for the next level that needs parts, in order."""
    missing = L1_PARTS - held or L2_PARTS - held
    return sorted(missing)
