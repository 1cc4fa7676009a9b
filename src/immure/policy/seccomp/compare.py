"""Two profiles, compared exactly: over every architecture, call number and combination of 64-bit arguments.

A difference is shown by a witness, a concrete call that the two profiles answer differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import pairwise
from typing import Literal

import msgspec

from .abi import FAMILIES, X32_BIT, Abi, family
from .actions import ENOSYS_RETURN, describe, severity
from .decide import NO_RULE, Joint, clauses_at
from .profile import Profile
from .resolve import AbiPolicy, Clause, Kernel, resolve
from .syscalls import numbers

Kind = Literal["stricter", "looser", "other"]
Relation = Literal["equal", "stricter", "looser", "incomparable"]


class Answer(msgspec.Struct, frozen=True):
    """What a profile says to a call: such as `ALLOW` or `ERRNO EPERM`, and the index of the rule that decided.

    `rule` is None for the default action, a foreign ABI, or a call newer than the profile.
    """

    answer: str
    rule: int | None


class Difference(msgspec.Struct, frozen=True):
    """One call to which the answers differ. `kind` says what the second profile is there.

    `other` is another answer that is as strict, such as another errno. `call` is None for a number without a name;
    then `count` numbers from `number` on, those with a name left out, get the same two answers.
    """

    abi: str
    call: str | None
    number: int
    count: int
    args: tuple[int, ...]
    kind: Kind
    first: Answer
    second: Answer


class Comparison(msgspec.Struct, frozen=True):
    """What the second profile is to the first, and a witness for every call and pair of answers."""

    relation: Relation
    differences: tuple[Difference, ...]


def compare(
    first: Profile,
    second: Profile,
    *,
    arches: Sequence[str] = tuple(FAMILIES),
    capabilities: Set[str] = frozenset(),
    kernel: Kernel = (6, 1),
) -> Comparison:
    """Compare two profiles on hosts of these native architectures.

    `capabilities` and `kernel` are those of `compile_filter`. `stricter`: nothing gets a looser answer by the second
    profile, something a stricter one. `incomparable`: both occur, or answers differ that are equally strict and nothing
    else does. Raises ProfileError as `compile_filter` does.
    """
    found: list[Difference] = []
    for arch in arches:
        ours = {policy.abi: policy for policy in resolve(first, arch, capabilities, kernel)}
        theirs = {policy.abi: policy for policy in resolve(second, arch, capabilities, kernel)}
        for abi in family(arch):
            # A filter of ours answers ENOSYS on an ABI that its profile does not declare.
            foreign = AbiPolicy(abi, {}, ENOSYS_RETURN, None)
            found += _Comparer(abi, ours.get(abi, foreign), theirs.get(abi, foreign)).differences()
    return Comparison(_relation({one.kind for one in found}), tuple(found))


def _relation(kinds: set[Kind]) -> Relation:
    if not kinds:
        return "equal"
    if kinds <= {"stricter", "other"} and "stricter" in kinds:
        return "stricter"
    if kinds <= {"looser", "other"} and "looser" in kinds:
        return "looser"
    return "incomparable"


class _Comparer:
    """Compares two policies of one ABI."""

    def __init__(self, abi: Abi, first: AbiPolicy, second: AbiPolicy) -> None:
        self._abi = abi
        self._first = first
        self._second = second
        self._joint = Joint()

    def differences(self) -> Iterator[Difference]:
        names = {number: name for name, number in numbers(self._abi).items()}
        special = sorted({*self._first.clauses, *self._second.clauses, *names})
        for number in special:
            yield from self._at(number, names.get(number), 1)
        for start, count in self._nameless(special):
            yield from self._at(start, None, count)

    def _nameless(self, special: Sequence[int]) -> Iterator[tuple[int, int]]:
        """The other numbers, in pieces within which both policies answer the same: the first one, and how many."""
        end = X32_BIT if self._abi.name == "x86_64" else 1 << 32
        cuts = {self._abi.first, end}
        cuts |= {one.newest + 1 for one in (self._first, self._second) if one.newest is not None}
        borders = sorted(cut for cut in cuts if self._abi.first <= cut <= end)
        for low, high in pairwise(borders):
            inside = {number for number in special if low <= number < high}
            free = next((number for number in range(low, high) if number not in inside), None)
            if free is not None:
                yield free, high - low - len(inside)

    def _at(self, number: int, name: str | None, count: int) -> Iterator[Difference]:
        pairs = self._joint.answers((clauses_at(self._first, number), clauses_at(self._second, number)))
        for (before, after), witness in pairs.items():
            if before != after:
                args = tuple(witness.args.get(index, 0) for index in range(max(witness.args, default=-1) + 1))
                kind: Kind = "other"
                if severity(before) != severity(after):
                    kind = "stricter" if severity(after) < severity(before) else "looser"
                yield Difference(self._abi.name, name, number, count, args, kind, *map(_answer, witness.clauses))


def _answer(clause: Clause) -> Answer:
    return Answer(describe(clause.value), None if clause.rule == NO_RULE else clause.rule)
