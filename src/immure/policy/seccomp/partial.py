"""What a profile says to a call of which only some arguments are known."""

from __future__ import annotations

from collections.abc import Mapping, Set

import msgspec

from .abi import abi_of_call, find_abi
from .actions import ENOSYS_RETURN, PERMISSIVE, RETURNS
from .classes import holds
from .decide import NO_RULE, Joint, Witness, clauses_at, fix
from .profile import Profile
from .resolve import AbiPolicy, Kernel, resolve

_OPEN = {RETURNS[action] for action in PERMISSIVE}


class Outcome(msgspec.Struct, frozen=True):
    """One answer that the call can get: the filter's return value, the rule that decides, and arguments that show it.

    `rule` is None for the default action, a foreign ABI, or a call newer than the profile, as `reason` says.
    """

    value: int
    rule: int | None
    args: Mapping[int, int]
    reason: str

    @property
    def allowed(self) -> bool:
        """Whether the kernel carries the call out: ALLOW, LOG or TRACE."""
        return self.value & 0xFFFF_0000 in _OPEN


def outcomes_of(
    profile: Profile,
    abi_name: str,
    number: int,
    known: Mapping[int, int],
    *,
    arch: str = "x86_64",
    capabilities: Set[str] = frozenset(),
    kernel: Kernel = (6, 1),
) -> tuple[Outcome, ...]:
    """Every answer that call `number` gets with the arguments in `known` and any others. Exact.

    The keywords are those of `compile_filter`, and so is what is raised.
    """
    abi = abi_of_call(find_abi(abi_name), number)
    policies = {policy.abi: policy for policy in resolve(profile, arch, capabilities, kernel)}
    # A filter of ours answers ENOSYS on an ABI that its profile does not declare.
    policy = policies.get(abi, AbiPolicy(abi, {}, ENOSYS_RETURN, None))
    clauses = clauses_at(policy, number)
    given = {one: holds(one, known[one.index]) for clause in clauses for one in clause.conditions if one.index in known}
    reason = "default"
    if abi not in policies:
        reason = "foreign ABI"
    elif policy.newest is not None and number > policy.newest:
        reason = "newer than the profile"
    found = Joint(by_rule=True).answers((fix(clauses, given),))
    return tuple(_outcome(witness, known, reason) for witness in found.values())


def _outcome(witness: Witness, known: Mapping[int, int], reason: str) -> Outcome:
    clause = witness.clauses[0]
    by_rule = clause.rule != NO_RULE
    args = {**known, **witness.args}
    return Outcome(clause.value, clause.rule if by_rule else None, args, "rule" if by_rule else reason)
