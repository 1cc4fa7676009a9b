"""Conditions on words of 32 bits, and what is left of them once a word is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .bpf import FULL
from .profile import MAX_U64, Arg, Operator

_FEW = 32
"""Up to this many clauses, each is checked against all earlier ones."""


class Word(NamedTuple):
    """One half of an argument."""

    argument: int
    high: bool


class Literal(NamedTuple):
    """An undecided condition. On a high word, `value` and `mask` still have 64 bits; on a low word, 32.

    `ordered`: the argument is at least `value`; otherwise its bits under `mask` are `value`.
    """

    word: Word
    ordered: bool
    value: int
    mask: int
    negated: bool

    @property
    def word_value(self) -> int:
        """The part of `value` that the word is compared with."""
        return self.value >> 32 if self.word.high else self.value

    @property
    def word_mask(self) -> int:
        """The part of `mask` that is on the word."""
        return self.mask >> 32 if self.word.high else self.mask

    @property
    def is_interval(self) -> bool:
        """Whether it is decided by where in the word's range the value lies, not by single bits of it."""
        return self.ordered or self.word_mask == FULL


Truth = Literal | bool
Clause = tuple[tuple[Literal, ...], int]
"""Conditions that must all hold, and the node to go to then."""
Clauses = tuple[Clause, ...]
"""In order of precedence."""
Fixed = tuple[tuple[Truth, ...], int]
"""A clause some of whose conditions have just been decided."""


def literal(arg: Arg) -> Truth:
    """A condition in normal form: `>=` or masked equality, perhaps negated; or a constant."""
    negated = arg.op in (Operator.LT, Operator.LE, Operator.NE)
    if arg.op in (Operator.GE, Operator.LT):
        return _at_least(arg.index, arg.value, negated)
    if arg.op in (Operator.GT, Operator.LE):
        return _at_least(arg.index, arg.value + 1, negated)
    if arg.op is Operator.MASKED_EQ:
        # seccomp_rule_add(3): the datum is masked too.
        return _masked(arg.index, arg.value, arg.value_two & arg.value, negated)
    return _masked(arg.index, MAX_U64, arg.value, negated)


def _at_least(argument: int, value: int, negated: bool) -> Truth:
    if value == 0:
        return not negated
    if value > MAX_U64:
        return negated
    return Literal(Word(argument, True), True, value, 0, negated)


def _masked(argument: int, mask: int, value: int, negated: bool) -> Truth:
    if mask == 0:
        return not negated
    # A mask without high bits must not look at the high word: the kernel ignores it in an int argument.
    return Literal(Word(argument, mask > FULL), False, value, mask, negated)


def cuts(one: Literal) -> Iterable[int]:
    """Values of the word at which the truth of an interval literal changes."""
    value = one.word_value
    equal_differs = not one.ordered or (one.word.high and one.value & FULL)
    return (value, value + 1) if equal_differs else (value,)


def fix_value(clauses: Iterable[Clause], word: Word, value: int, *, alone: bool) -> list[Fixed]:
    """The clauses where `word` is in the interval that begins with `value`, or is `value` alone.

    Masks are only decided by a value that is alone.
    """
    return [
        (
            tuple(
                _given_value(one, value) if one.word == word and (alone or one.is_interval) else one
                for one in conditions
            ),
            node,
        )
        for conditions, node in clauses
    ]


def fix_match(clauses: Iterable[Clause], mask_of: Literal, matches: bool) -> list[Fixed]:
    """The clauses, knowing whether the word of `mask_of` has its value under its mask."""
    return [
        (tuple(_given_match(one, matches) if _same_test(one, mask_of) else one for one in conditions), node)
        for conditions, node in clauses
    ]


def _same_test(one: Literal, other: Literal) -> bool:
    same_bits = one.word_mask == other.word_mask and one.word_value == other.word_value
    return one.word == other.word and same_bits and not one.ordered


def _given_value(one: Literal, word: int) -> Truth:
    if one.ordered and word != one.word_value:
        return (word > one.word_value) != one.negated
    return _given_match(one, one.ordered or word & one.word_mask == one.word_value)


def _given_match(one: Literal, matches: bool) -> Truth:
    """False under negation is true; otherwise a high word that matches leaves the low one to look at."""
    if not matches:
        return one.negated
    low_mask = one.mask & FULL
    low_matters = one.value & FULL if one.ordered else low_mask
    if not one.word.high or not low_matters:
        return not one.negated
    return one._replace(word=Word(one.word.argument, False), value=one.value & FULL, mask=low_mask)


def simplify(clauses: Iterable[Fixed], final: int) -> Clauses:
    """Drop what can't hold, always holds, is covered by an earlier clause, or is last and changes nothing."""
    kept: list[Clause] = []
    for conditions, node in clauses:
        if any(one is False for one in conditions):
            continue
        literals = tuple(dict.fromkeys(one for one in conditions if not isinstance(one, bool)))
        if len(kept) > _FEW or not _covered(kept, literals):
            kept.append((literals, node))
        if not literals:
            break
    while kept and kept[-1][1] == final:
        kept.pop()
    return tuple(dict.fromkeys(kept))


def _covered(earlier: Sequence[Clause], literals: tuple[Literal, ...]) -> bool:
    mine = set(literals)
    return any(mine.issuperset(conditions) for conditions, _ in earlier)


def cells(clauses: Clauses, word: Word) -> Iterable[tuple[int, bool, list[Clause]]]:
    """The intervals of `word` within which no interval literal changes: start, whether one value, clauses.

    A clause that needs one certain value is only listed there, so that a list of n values costs n, not n².
    """
    literals = [one for conditions, _ in clauses for one in conditions if one.word == word]
    edges = {cut for one in literals if one.is_interval for cut in cuts(one) if cut <= FULL}
    starts = sorted({0} | edges)
    pinned: dict[int, list[int]] = {}
    anywhere: list[int] = []
    for position, (conditions, _) in enumerate(clauses):
        value = _needed(conditions, word)
        (anywhere if value is None else pinned.setdefault(value, [])).append(position)
    for start, end in zip(starts, [*starts[1:], FULL + 1], strict=True):
        here = sorted(anywhere + pinned.get(start, []))
        yield start, end == start + 1, [clauses[position] for position in here]


def _needed(conditions: Iterable[Literal], word: Word) -> int | None:
    """The one value that `word` must have for the conditions to hold, if there is one."""
    for one in conditions:
        if one.word == word and not one.ordered and not one.negated and one.is_interval:
            return one.word_value
    return None
