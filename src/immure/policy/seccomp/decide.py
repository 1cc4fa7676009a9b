"""What a resolved policy says to a call, and which of its rules ever decide. Exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .actions import ENOSYS_RETURN, severity
from .classes import classes, holds
from .profile import Arg
from .resolve import AbiPolicy, Clause

NO_RULE = -1
"""The rule of a clause that stands for the default action, or for calls newer than the profile."""

Clauses = tuple[Clause, ...]


class Witness(msgspec.Struct, frozen=True):
    """Arguments by their position, those that do not count left out, and the clause that decides in each policy."""

    args: Mapping[int, int]
    clauses: Clauses


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


class Joint:
    """What several policies say to the same call: every combination of answers that some arguments get.

    Combinations are kept by the clauses that lead to them, which many calls share. With `by_rule`, the same answer by
    another rule is another answer.
    """

    def __init__(self, *, by_rule: bool = False) -> None:
        self._by_rule = by_rule
        self._memo: dict[tuple[Clauses, ...], dict[tuple[int, ...], Witness]] = {}

    def answers(self, several: tuple[Clauses, ...]) -> dict[tuple[int, ...], Witness]:
        """The values that the policies return together (`by_rule`: and the rules) → arguments for which they do."""
        known = self._memo.get(several)
        if known is None:
            known = self._memo[several] = self._expand(several)
        return known

    def _expand(self, several: tuple[Clauses, ...]) -> dict[tuple[int, ...], Witness]:
        here = conditions_on_one([clause for clauses in several for clause in clauses])
        if not here:
            deciding = tuple(clauses[0] for clauses in several)
            rules = tuple(clause.rule for clause in deciding) if self._by_rule else ()
            return {(*(clause.value for clause in deciding), *rules): Witness({}, deciding)}
        found: dict[tuple[int, ...], Witness] = {}
        for truths, value in classes(here).items():
            known = dict(zip(here, truths, strict=True))
            for values, rest in self.answers(tuple(fix(clauses, known) for clauses in several)).items():
                found.setdefault(values, Witness({here[0].index: value, **rest.args}, rest.clauses))
        return found


def deciding_rules(clauses: Clauses) -> frozenset[int]:
    """The rules that decide for some arguments, NO_RULE among them where the default does."""
    return frozenset(witness.clauses[0].rule for witness in Joint(by_rule=True).answers((clauses,)).values())
