"""Two profiles in one program: of both answers to a call the stricter counts, as where the kernel runs two filters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .actions import severity
from .resolve import AbiPolicy, Clause


def stricter(policy: AbiPolicy, beside: AbiPolicy) -> AbiPolicy:
    """`policy` made as strict as `beside`, whose default must be to allow and whose clauses answer with an errno.

    Of equally strict answers `policy`'s counts, as that of the filter that is installed last.
    """
    clauses = dict(policy.clauses)
    for number, others in beside.clauses.items():
        # Above the newest call that a profile names all is ENOSYS already.
        if policy.newest is None or number <= policy.newest:
            own = policy.clauses.get(number, ())
            clauses[number] = [*own, *_added(own, others, policy.default)]
    return AbiPolicy(
        policy.abi, {number: found for number, found in clauses.items() if found}, policy.default, policy.newest
    )


def _added(own: Sequence[Clause], others: Sequence[Clause], default: int) -> Iterator[Clause]:
    for other in others:
        rank = severity(other.value)
        if severity(default) > rank:
            yield other
            continue
        # Only what the policy lets through is left to refuse.
        for one in own:
            if severity(one.value) > rank:
                yield Clause((*one.conditions, *other.conditions), other.value, other.rule)
