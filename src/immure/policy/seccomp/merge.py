"""One profile that lets through what any of several lets through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import msgspec

from immure.errors import ProfileError
from immure.policy.capabilities import NAMES

from .abi import FAMILIES, Abi, family
from .actions import ENOSYS_RETURN, PERMISSIVE, describe, encode, severity
from .decide import Joint, clauses_at
from .profile import Architecture, Profile, Rule
from .resolve import AbiPolicy, resolve
from .syscalls import numbers

_ALL_CAPABILITIES = frozenset(f"CAP_{name}" for name in NAMES)
_KERNEL = (6, 1)


def merge(profiles: Sequence[Profile]) -> Profile:
    """A profile of which the answer to each call is the least strict one of `profiles`, of equal ones the first's.

    It declares the ABIs of all. Raises ProfileError where defaults differ, or where a list of rules can't say it: which
    call that is, and with which arguments.
    """
    first = profiles[0]
    default = encode(first.default_action, first.default_data)
    for other in profiles[1:]:
        theirs = encode(other.default_action, other.default_data)
        if severity(theirs) != severity(default):
            raise ProfileError(
                "the profiles have different defaults",
                path="$.defaultAction",
                need="the same default action in each",
                have=f"{describe(default)} and {describe(theirs)}",
            )
    rules = tuple(rule for profile in profiles for rule in _left(profile, profiles))
    merged = msgspec.structs.replace(
        first, syscalls=tuple(dict.fromkeys(rules)) or None, architectures=_architectures(profiles), arch_map=None
    )
    for capabilities in (frozenset[str](), _ALL_CAPABILITIES):
        _confirm(merged, profiles, capabilities)
    return merged


def _left(profile: Profile, profiles: Sequence[Profile]) -> Iterator[Rule]:
    """The rules of one, without what would refuse a call that another lets through whatever its arguments."""
    for rule in profile.rules:
        open_elsewhere: set[str] = set()
        if rule.action not in PERMISSIVE:
            open_elsewhere = {name for other in profiles if other is not profile for name in _always_open(other)}
        names = tuple(name for name in rule.calls if name not in open_elsewhere)
        if names:
            yield msgspec.structs.replace(rule, names=names, name=None)


def _always_open(profile: Profile) -> set[str]:
    plain = [rule for rule in profile.rules if not rule.args and rule.includes is None and rule.excludes is None]
    closed = {name for rule in profile.rules if rule.action not in PERMISSIVE for name in rule.calls}
    return {name for rule in plain if rule.action in PERMISSIVE for name in rule.calls} - closed


def _architectures(profiles: Sequence[Profile]) -> tuple[Architecture, ...] | None:
    found: dict[Architecture, None] = {}
    for profile in profiles:
        found.update(dict.fromkeys(profile.architectures or ()))
        for entry in profile.arch_map or ():
            found.update(dict.fromkeys((entry.architecture, *(entry.sub_architectures or ()))))
    return tuple(found) or None


def _confirm(merged: Profile, profiles: Sequence[Profile], capabilities: Set[str]) -> None:
    """Raise ProfileError for a call to which the merged profile has another answer than the least strict one."""
    for arch in FAMILIES:
        resolved = [
            {policy.abi: policy for policy in resolve(one, arch, capabilities, _KERNEL)} for one in (merged, *profiles)
        ]
        for abi in family(arch):
            foreign = AbiPolicy(abi, {}, ENOSYS_RETURN, None)
            _confirm_abi(abi, [one.get(abi, foreign) for one in resolved])


def _confirm_abi(abi: Abi, policies: Sequence[AbiPolicy]) -> None:
    joint = Joint()
    for name, number in numbers(abi).items():
        answers = joint.answers(tuple(clauses_at(policy, number) for policy in policies))
        for (ours, *theirs), witness in answers.items():
            if severity(ours) != max(map(severity, theirs)):
                args = ", ".join(f"{index}: {value:#x}" for index, value in witness.args.items())
                raise ProfileError(
                    f"{name} can't be merged: one profile refuses what another allows, by conditions",
                    path="$.syscalls",
                    need="calls that one of them leaves alone or allows whatever the arguments",
                    have=f"{abi.name} {name}({args})",
                )
