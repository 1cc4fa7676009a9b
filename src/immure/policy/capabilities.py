"""Capability sets: names, numbers, and the order in which `drop` and `add` apply.

Order as in Kubernetes' runtimes: add ALL, drop ALL, single adds, single drops. Source: capabilities(7).
"""

from __future__ import annotations

from immure.errors import SpecError

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip

SECBIT_NOROOT = 0x03
SECBIT_NO_SETUID_FIXUP = 0x0C
SECBIT_NO_CAP_AMBIENT_RAISE = 0xC0
"""Each with its lock bit."""


def known(last: int) -> int:
    """The mask of all capabilities up to number `last`, the kernel's `cap_last_cap`."""
    return (1 << (last + 1)) - 1


def resolve(add: tuple[str, ...], drop: tuple[str, ...], *, last: int, path: str) -> int:
    """The mask that a command keeps. A name this kernel does not know is an error."""
    singles = _mask(add, last, f"{path}.add")
    kept = known(last) if "ALL" in _upper(add) and "ALL" not in _upper(drop) else 0
    return (kept | singles) & ~_mask(drop, last, f"{path}.drop")


def securebits(keep: int) -> int:
    """Uid 0 gets nothing by being 0; ambient capabilities can be raised only where some are kept."""
    return SECBIT_NOROOT | (SECBIT_NO_SETUID_FIXUP if keep else SECBIT_NO_CAP_AMBIENT_RAISE)


def _upper(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.upper().removeprefix("CAP_") for name in names)


def _mask(names: tuple[str, ...], last: int, path: str) -> int:
    mask = 0
    for index, name in enumerate(_upper(names)):
        if name == "ALL":
            continue
        if name not in NAMES[: last + 1]:
            raise SpecError(
                "unknown capability",
                path=f"{path}[{index}]",
                need="a capability of this kernel, such as NET_BIND_SERVICE, or ALL",
                have=repr(names[index]),
            )
        mask |= 1 << NAMES.index(name)
    return mask
