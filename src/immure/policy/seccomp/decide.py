"""What a resolved policy says to a call, and which of its rules ever decide. Exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .actions import ENOSYS_RETURN, severity
from .classes import classes, holds
from .profile import Arg
from .resolve import AbiPolicy, Clause

NO_RULE = -1
"""The rule of a clause that stands for the default action, or for calls newer than the profile."""

Clauses = tuple[Clause, ...]


def clauses_at(policy: AbiPolicy, number: int) -> Clauses:
    """The clauses of a call, the one that counts first in front, up to one without conditions."""
    clauses = sorted(policy.clauses.get(number, ()), key=lambda clause: severity(clause.value))
    new = policy.newest is not None and number > policy.newest
    return cut([*clauses, Clause((), ENOSYS_RETURN if new else policy.default, NO_RULE)])


def answer_to(policy: AbiPolicy, number: int, args: Mapping[int, int]) -> Clause:
    """The clause that decides. Arguments that are not given are 0."""
    return next(
        clause
        for clause in clauses_at(policy, number)
        if all(holds(one, args.get(one.index, 0)) for one in clause.conditions)
    )


def fix(clauses: Clauses, known: Mapping[Arg, bool]) -> Clauses:
    """What is left of clauses once the truth of some conditions is known."""
    left: list[Clause] = []
    for clause in clauses:
        if all(known.get(one, True) for one in clause.conditions):
            conditions = tuple(one for one in clause.conditions if one not in known)
            left.append(Clause(conditions, clause.value, clause.rule))
    return cut(left)


def cut(clauses: Sequence[Clause]) -> Clauses:
    """The clauses up to the first one that always holds."""
    for position, clause in enumerate(clauses):
        if not clause.conditions:
            return tuple(clauses[: position + 1])
    return tuple(clauses)


def conditions_on_one(clauses: Sequence[Clause]) -> list[Arg]:
    """All conditions on the first argument that any clause looks at; empty where none does."""
    conditions = [one for clause in clauses for one in clause.conditions]
    index = min((one.index for one in conditions), default=0)
    return list(dict.fromkeys(one for one in conditions if one.index == index))


def deciding_rules(clauses: Clauses) -> frozenset[int]:
    """The rules that decide for some arguments, NO_RULE among them where the default does."""
    here = conditions_on_one(clauses)
    if not here:
        return frozenset({clauses[0].rule})
    found: set[int] = set()
    for truths in classes(here):
        found |= deciding_rules(fix(clauses, dict(zip(here, truths, strict=True))))
    return frozenset(found)
