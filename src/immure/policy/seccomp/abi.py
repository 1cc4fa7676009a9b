"""The ways into a kernel: architectures, their 32-bit and x32 companions, and every name they go by.

Values of `audit` are AUDIT_ARCH_* of `linux/audit.h`: what `seccomp_data.arch` holds. x32 shares x86_64's and
is told apart by bit 30 of the call number (`__X32_SYSCALL_BIT` of `asm/unistd.h`).
"""

from __future__ import annotations

import msgspec

from immure.errors import ProfileError

X32_BIT = 0x4000_0000


class Abi(msgspec.Struct, frozen=True):
    """One calling convention. `docker` is its name in `includes.arches`, `oci` the one in `architectures`."""

    name: str
    oci: str
    docker: str
    audit: int
    big_endian: bool = False
    first: int = 0
    """The lowest call number of this ABI: X32_BIT for x32, else 0."""


_ALL = (
    Abi("x86_64", "SCMP_ARCH_X86_64", "amd64", 0xC000_003E),
    Abi("i386", "SCMP_ARCH_X86", "x86", 0x4000_0003),
    Abi("x32", "SCMP_ARCH_X32", "x32", 0xC000_003E, first=X32_BIT),
    Abi("aarch64", "SCMP_ARCH_AARCH64", "arm64", 0xC000_00B7),
    Abi("arm", "SCMP_ARCH_ARM", "arm", 0x4000_0028),
    Abi("riscv64", "SCMP_ARCH_RISCV64", "riscv64", 0xC000_00F3),
    Abi("s390x", "SCMP_ARCH_S390X", "s390x", 0x8000_0016, big_endian=True),
    Abi("s390", "SCMP_ARCH_S390", "s390", 0x16, big_endian=True),
    Abi("ppc64le", "SCMP_ARCH_PPC64LE", "ppc64le", 0xC000_0015),
    Abi("loongarch64", "SCMP_ARCH_LOONGARCH64", "loongarch64", 0xC000_0102),
)

ABIS: dict[str, Abi] = {abi.name: abi for abi in _ALL}
BY_OCI: dict[str, Abi] = {abi.oci: abi for abi in _ALL}

#: Which ABIs one kernel serves. The first is the native one.
FAMILIES: dict[str, tuple[str, ...]] = {
    "x86_64": ("x86_64", "i386", "x32"),
    "aarch64": ("aarch64", "arm"),
    "riscv64": ("riscv64",),
    "s390x": ("s390x", "s390"),
    "ppc64le": ("ppc64le",),
    "loongarch64": ("loongarch64",),
}

_ALIASES = {name: abi.name for abi in _ALL for name in (abi.name, abi.docker, abi.oci)}


def find_abi(name: str) -> Abi:
    """The ABI called `name` by us, by Docker or by OCI. Raises ProfileError for any other name."""
    known = _ALIASES.get(name)
    if known is None:
        raise ProfileError(f"no such architecture: {name}", need=f"one of {', '.join(ABIS)}")
    return ABIS[known]


def family(arch: str) -> tuple[Abi, ...]:
    """All ABIs that a kernel of architecture `arch` may serve, the native one first."""
    native = find_abi(arch).name
    if native not in FAMILIES:
        raise ProfileError(f"{native} is not a native architecture", need=f"one of {', '.join(FAMILIES)}")
    return tuple(ABIS[name] for name in FAMILIES[native])


def abi_of_call(abi: Abi, number: int) -> Abi:
    """The ABI that call `number` belongs to: x86_64's from X32_BIT on are x32's, as libseccomp has it."""
    if abi.audit == ABIS["x86_64"].audit:
        return ABIS["x32"] if number >= X32_BIT else ABIS["x86_64"]
    return abi
