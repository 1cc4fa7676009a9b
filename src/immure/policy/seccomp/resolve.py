"""First pass: a profile and the facts of a host → the clauses of every call on every ABI.

After it there are no names, capabilities or kernels left, only numbers, conditions and return values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set

import msgspec

from .abi import BY_OCI, Abi, family, find_abi
from .actions import ENOSYS_RETURN, PERMISSIVE, encode
from .profile import Arg, Profile, Rule, Scope, parse_kernel
from .syscalls import numbers

Kernel = tuple[int, int]


class Clause(msgspec.Struct, frozen=True):
    """Conditions that must all hold, and the filter's return value then. `rule` is an index in `syscalls`."""

    conditions: tuple[Arg, ...]
    value: int
    rule: int


class AbiPolicy(msgspec.Struct, frozen=True):
    """What one ABI's calls get. `newest` is the highest number that gets `default`; above it is ENOSYS."""

    abi: Abi
    clauses: Mapping[int, Sequence[Clause]]
    default: int
    newest: int | None


def resolve(profile: Profile, arch: str, capabilities: Set[str], kernel: Kernel) -> tuple[AbiPolicy, ...]:
    """The policy of each ABI that `profile` declares for a host."""
    rules = applying_rules(profile, arch, capabilities, kernel)
    return tuple(_resolve_abi(profile, abi, rules) for abi in declared_abis(profile, arch))


def declared_abis(profile: Profile, arch: str) -> tuple[Abi, ...]:
    """The ABIs of `arch`'s kernel that the profile is for, the native one first.

    The native ABI is always among them, as libseccomp and runc have it; of `archMap` the native entry counts,
    as in Docker. Architectures that a kernel of `arch` never serves are left out.
    """
    native, *others = family(arch)
    oci_names = {architecture.value for architecture in profile.architectures or ()}
    for entry in profile.arch_map or ():
        if BY_OCI.get(entry.architecture.value) == native:
            oci_names.update(sub.value for sub in entry.sub_architectures or ())
    return native, *(abi for abi in others if abi.oci in oci_names)


def applying_rules(profile: Profile, arch: str, capabilities: Set[str], kernel: Kernel) -> list[tuple[int, Rule]]:
    """The rules that apply on this host, with their index, in the document's order."""
    docker_arch = find_abi(arch).docker
    return [
        (index, rule)
        for index, rule in enumerate(profile.rules)
        if not _excluded(rule.excludes, docker_arch, capabilities, kernel)
        and _included(rule.includes, docker_arch, capabilities, kernel)
    ]


def _excluded(scope: Scope | None, arch: str, capabilities: Set[str], kernel: Kernel) -> bool:
    """Docker: one hit is enough."""
    if scope is None:
        return False
    too_new = scope.min_kernel is not None and kernel >= parse_kernel(scope.min_kernel)
    return arch in (scope.arches or ()) or any(cap in capabilities for cap in scope.caps or ()) or too_new


def _included(scope: Scope | None, arch: str, capabilities: Set[str], kernel: Kernel) -> bool:
    """Docker: the architecture must be listed, every capability held, the kernel new enough."""
    if scope is None:
        return True
    right_arch = not scope.arches or arch in scope.arches
    new_enough = scope.min_kernel is None or kernel >= parse_kernel(scope.min_kernel)
    return right_arch and new_enough and all(cap in capabilities for cap in scope.caps or ())


def _resolve_abi(profile: Profile, abi: Abi, rules: Sequence[tuple[int, Rule]]) -> AbiPolicy:
    table = numbers(abi)
    clauses: dict[int, list[Clause]] = {}
    for index, rule in rules:
        made = _clauses(rule, index)
        for number in {table[name] for name in rule.calls if name in table}:
            clauses.setdefault(number, []).extend(made)
    default = encode(profile.default_action, profile.default_data)
    return AbiPolicy(abi, clauses, default, newest_named(profile, clauses.keys()))


def _clauses(rule: Rule, index: int) -> list[Clause]:
    """One clause, or one per condition where two conditions are on the same argument: runc reads that as OR.

    runc's rule is all or nothing: then also the conditions on other arguments stand alone.
    """
    value = encode(rule.action, rule.data)
    conditions = rule.args or ()
    if any(count > 1 for count in Counter(arg.index for arg in conditions).values()):
        return [Clause((condition,), value, index) for condition in conditions]
    return [Clause(conditions, value, index)]


def newest_named(profile: Profile, named: Set[int]) -> int | None:
    """The highest call number that an applying rule names; None where newer calls get the default action.

    runc's reading (libcontainer/seccomp/patchbpf): a C library probes for new calls and falls back on ENOSYS,
    not on EPERM, so a call newer than the profile must look like one that the kernel lacks, unless the
    default action lets it through anyway. A profile that names no call, or number 0 alone, has nothing to go
    by.
    """
    newest = max(named, default=0)
    permissive = profile.default_action in PERMISSIVE
    silent = encode(profile.default_action, profile.default_data) == ENOSYS_RETURN
    return None if permissive or silent or not newest else newest
