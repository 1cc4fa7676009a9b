"""The profile as users write it: the OCI runtime-spec's `linux.seccomp`, with Docker's and Podman's keys.

The models are the document, unresolved: which rules apply on which host is `resolve.py`'s work. Sources of
the semantics: the runtime-spec's config-linux.md#seccomp, moby/profiles (`name`, `archMap`, `includes`,
`excludes`) and containers/common (`errno`, `defaultErrno`).
"""

from __future__ import annotations

from enum import Enum

import msgspec

from .actions import CARRIES_DATA, Action, errno_number

MAX_U64 = 2**64 - 1


class Operator(Enum):
    """How an argument of 64 bits, unsigned, is compared. MASKED_EQ: `arg & value == valueTwo & value`."""

    NE = "SCMP_CMP_NE"
    LT = "SCMP_CMP_LT"
    LE = "SCMP_CMP_LE"
    EQ = "SCMP_CMP_EQ"
    GE = "SCMP_CMP_GE"
    GT = "SCMP_CMP_GT"
    MASKED_EQ = "SCMP_CMP_MASKED_EQ"


class Architecture(Enum):
    """Every architecture that the runtime-spec names, whether or not we have its table of calls."""

    X86 = "SCMP_ARCH_X86"
    X86_64 = "SCMP_ARCH_X86_64"
    X32 = "SCMP_ARCH_X32"
    ARM = "SCMP_ARCH_ARM"
    AARCH64 = "SCMP_ARCH_AARCH64"
    LOONGARCH64 = "SCMP_ARCH_LOONGARCH64"
    M68K = "SCMP_ARCH_M68K"
    MIPS = "SCMP_ARCH_MIPS"
    MIPS64 = "SCMP_ARCH_MIPS64"
    MIPS64N32 = "SCMP_ARCH_MIPS64N32"
    MIPSEL = "SCMP_ARCH_MIPSEL"
    MIPSEL64 = "SCMP_ARCH_MIPSEL64"
    MIPSEL64N32 = "SCMP_ARCH_MIPSEL64N32"
    PPC = "SCMP_ARCH_PPC"
    PPC64 = "SCMP_ARCH_PPC64"
    PPC64LE = "SCMP_ARCH_PPC64LE"
    S390 = "SCMP_ARCH_S390"
    S390X = "SCMP_ARCH_S390X"
    SH = "SCMP_ARCH_SH"
    SHEB = "SCMP_ARCH_SHEB"
    PARISC = "SCMP_ARCH_PARISC"
    PARISC64 = "SCMP_ARCH_PARISC64"
    RISCV64 = "SCMP_ARCH_RISCV64"


class Flag(Enum):
    """Flags of seccomp(2) that a profile may ask for."""

    TSYNC = "SECCOMP_FILTER_FLAG_TSYNC"
    LOG = "SECCOMP_FILTER_FLAG_LOG"
    SPEC_ALLOW = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"
    WAIT_KILLABLE_RECV = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"


FLAG_BITS: dict[Flag, int] = {
    Flag.TSYNC: 1,
    Flag.LOG: 2,
    Flag.SPEC_ALLOW: 4,
    Flag.WAIT_KILLABLE_RECV: 32,
}


class _Strict(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Base of all models: immutable, camelCase in the document, an unknown key is an error."""


class Arg(_Strict, frozen=True):
    """A condition on one argument. `value_two` is only read by MASKED_EQ."""

    index: int
    value: int
    op: Operator
    value_two: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index <= 5:
            raise ValueError(f"index is {self.index}; a call has the arguments 0 to 5")
        for name, number in (("value", self.value), ("valueTwo", self.value_two)):
            if not 0 <= number <= MAX_U64:
                raise ValueError(f"{name} is {number}; an argument has 64 bits without a sign")


class Scope(_Strict, frozen=True):
    """Where a rule applies (`includes`) or doesn't (`excludes`). `arches`: Docker's names of native ones."""

    caps: tuple[str, ...] | None = None
    arches: tuple[str, ...] | None = None
    min_kernel: str | None = None

    def __post_init__(self) -> None:
        if self.min_kernel is not None:
            parse_kernel(self.min_kernel)


class Rule(_Strict, frozen=True):
    """One entry of `syscalls`: an action for some calls, if their arguments meet every condition."""

    action: Action
    names: tuple[str, ...] | None = None
    name: str | None = None
    errno_ret: int | None = None
    errno: str | None = None
    args: tuple[Arg, ...] | None = None
    comment: str | None = None
    includes: Scope | None = None
    excludes: Scope | None = None

    def __post_init__(self) -> None:
        if self.names and self.name:
            raise ValueError("both `name` and `names` are given; use `names`")
        if not self.calls or not all(self.calls):
            raise ValueError("a rule needs the name of at least one call in `names`")
        read_errno(self.action, self.errno_ret, self.errno)

    @property
    def calls(self) -> tuple[str, ...]:
        """The calls that the rule is for, whichever key they were written under."""
        return (self.name,) if self.name is not None else self.names or ()

    @property
    def data(self) -> int | None:
        """The number that goes with the action, if one is given."""
        return read_errno(self.action, self.errno_ret, self.errno)


class ArchMap(_Strict, frozen=True):
    """Docker's way to declare architectures: the entry of the native one counts, with all that it brings."""

    architecture: Architecture
    sub_architectures: tuple[Architecture, ...] | None = None


class Profile(_Strict, frozen=True):
    """A whole profile. `comment` is ours; Docker and runc ignore it."""

    default_action: Action
    default_errno_ret: int | None = None
    default_errno: str | None = None
    architectures: tuple[Architecture, ...] | None = None
    arch_map: tuple[ArchMap, ...] | None = None
    syscalls: tuple[Rule, ...] | None = None
    flags: tuple[Flag, ...] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        if self.architectures and self.arch_map:
            raise ValueError("both `architectures` and `archMap` are given; use one of them")
        read_errno(self.default_action, self.default_errno_ret, self.default_errno)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """`syscalls`, empty where the document has none."""
        return self.syscalls or ()

    @property
    def default_data(self) -> int | None:
        """The number that goes with the default action, if one is given."""
        return read_errno(self.default_action, self.default_errno_ret, self.default_errno)


def parse_kernel(text: str) -> tuple[int, int]:
    """`4.8` → (4, 8), the form that Docker reads. Raises ValueError for any other."""
    major, _, minor = text.partition(".")
    if not (major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit()):
        raise ValueError(f"minKernel is {text!r}; a kernel is written as `4.8`")
    return int(major), int(minor)


def read_errno(action: Action, number: int | None, name: str | None) -> int | None:
    """What `errnoRet` and Podman's `errno` agree on. Raises ValueError where that can't be honoured."""
    if name:
        named = errno_number(name)
        if named is None:
            raise ValueError(f"unknown errno {name!r}")
        if number is not None and number != named:
            raise ValueError(f"errno {name} is {named}, but errnoRet says {number}")
        number = named
    if number is None:
        return None
    # The runtime-spec: a runtime must fail where an action can't carry the number.
    if action not in CARRIES_DATA:
        raise ValueError(f"{action.value} can't carry an errno")
    if not 0 <= number <= 0xFFFF:
        raise ValueError(f"errnoRet is {number}; {action.value} carries 0 to 65535")
    return number
