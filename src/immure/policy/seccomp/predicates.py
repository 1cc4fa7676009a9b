"""Predicates on 64-bit arguments → decision graph.

BPF sees words of 32 bits, so a condition is decided in two steps, its high word first: `arg >= v` is true, false or
`low >= low(v)` once the high word is known. Fixing one word at a time (Shannon's expansion, over intervals of values
instead of bits) turns a list of clauses into smaller lists; equal lists share one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .bpf import FULL, JEQ, JSET
from .graph import Graph
from .profile import MAX_U64, Arg, Operator
from .search import Interval, search


class Word(NamedTuple):
    """One half of an argument."""

    argument: int
    high: bool


class Literal(NamedTuple):
    """An undecided condition. On a high word, `value` and `mask` still have 64 bits; on a low word, 32.

    `ordered`: the word is at least `value`; otherwise its bits under `mask` are `value`.
    """

    word: Word
    ordered: bool
    value: int
    mask: int
    negated: bool


Truth = Literal | bool
Clauses = tuple[tuple[tuple[Literal, ...], int], ...]
"""In order of precedence: conditions that must all hold, and the node to go to."""


class TooWide(Exception):
    """Fixing word after word makes too many cases of these clauses."""


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


def _at_least(index: int, value: int, negated: bool) -> Truth:
    if value == 0:
        return not negated
    if value > MAX_U64:
        return negated
    return Literal(Word(index, True), True, value, 0, negated)


def _masked(index: int, mask: int, value: int, negated: bool) -> Truth:
    if mask == 0:
        return not negated
    # A mask without high bits must not look at the high word: the kernel ignores it for an int argument.
    return Literal(Word(index, mask > FULL), False, value, mask, negated)


def _mask_of(one: Literal) -> int:
    return one.mask >> 32 if one.word.high else one.mask


def _value_of(one: Literal) -> int:
    return one.value >> 32 if one.word.high else one.value


def _is_interval(one: Literal) -> bool:
    return one.ordered or _mask_of(one) == FULL


def _cuts(one: Literal) -> Iterable[int]:
    """Where the truth of an interval literal changes."""
    value = _value_of(one)
    equal_matters = not one.ordered or (one.word.high and one.value & FULL)
    return (value, value + 1) if equal_matters else (value,)


def _given_value(one: Literal, word: int) -> Truth:
    """What is left of a literal whose word is known."""
    value = _value_of(one)
    if one.ordered and word != value:
        return (word > value) != one.negated
    return _given_match(one, one.ordered or word & _mask_of(one) == value)


def _given_match(one: Literal, matches: bool) -> Truth:
    """What is left of a literal, knowing whether its word is equal to its value under its mask."""
    if not matches:
        return one.negated
    low_mask = one.mask & FULL
    rest = one.value & FULL if one.ordered else low_mask
    if not one.word.high or not rest:
        return not one.negated
    return one._replace(word=Word(one.word.argument, False), value=one.value & FULL, mask=low_mask)


class Predicates:
    """Compiles clauses into `graph`. `limit` bounds the nodes that one list of clauses may cost."""

    def __init__(self, graph: Graph, *, big_endian: bool = False) -> None:
        self._graph = graph
        self._big_endian = big_endian
        self._memo: dict[tuple[Clauses, int, Word | None], int] = {}
        self._stop = 0

    def decide(self, clauses: Sequence[tuple[Sequence[Arg], int]], final: int) -> int:
        """The node that goes to the first clause of which every condition holds, else to `final`."""
        made = [(tuple(literal(arg) for arg in conditions), node) for conditions, node in clauses]
        known = _simplify(made, final)
        self._stop = len(self._graph.nodes) + 64 + 8 * sum(len(literals) for literals, _ in known)
        try:
            return self._decide(known, final, None)
        except TooWide:
            return self._one_by_one(known, final)

    def _one_by_one(self, clauses: Clauses, final: int) -> int:
        """Clause after clause: longer paths, but never more nodes than the clauses have conditions (times four)."""
        self._stop = len(self._graph.nodes) + 2**20
        for clause in reversed(clauses):
            final = self._decide((clause,), final, None)
        return final

    def _decide(self, clauses: Clauses, final: int, held: Word | None) -> int:
        """`held` is the word that the accumulator has."""
        if not clauses:
            return final
        if not clauses[0][0]:
            return clauses[0][1]
        key = (clauses, final, held)
        node = self._memo.get(key)
        if node is None:
            if len(self._graph.nodes) > self._stop:
                raise TooWide
            node = self._memo[key] = self._expand(clauses, final, held)
        return node

    def _expand(self, clauses: Clauses, final: int, held: Word | None) -> int:
        literals = [one for conditions, _ in clauses for one in conditions]
        word = literals[0].word
        if held is not None and any(one.word == held for one in literals):
            word = held
        here = [one for one in literals if one.word == word]
        load = None if word == held else self._offset(word)
        if any(_is_interval(one) for one in here):
            return self._by_interval(clauses, final, here, load)
        return self._by_mask(clauses, final, here[0], load)

    def _by_interval(self, clauses: Clauses, final: int, here: list[Literal], load: int | None) -> int:
        word = here[0].word
        cuts = {cut for one in here if _is_interval(one) for cut in _cuts(one)}
        starts = sorted({0} | {cut for cut in cuts if cut <= FULL})
        intervals: list[Interval] = []
        for start, end in zip(starts, [*starts[1:], FULL + 1], strict=True):
            alone = end == start + 1
            rest = [
                (
                    tuple(
                        _given_value(one, start) if one.word == word and (alone or _is_interval(one)) else one
                        for one in conditions
                    ),
                    node,
                )
                for conditions, node in clauses
            ]
            intervals.append((start, self._decide(_simplify(rest, final), final, word)))
        return search(self._graph, intervals, load=load)

    def _by_mask(self, clauses: Clauses, final: int, one: Literal, load: int | None) -> int:
        mask, value = _mask_of(one), _value_of(one)
        by_bit = value == 0 or (value == mask and mask.bit_count() == 1)
        # AND destroys the accumulator; JSET doesn't.
        held = one.word if by_bit else None
        yes = self._decide(_simplify(_given(clauses, one, True), final), final, held)
        no = self._decide(_simplify(_given(clauses, one, False), final), final, held)
        if not by_bit:
            return self._graph.test(JEQ, value, yes, no, load=load, mask=mask)
        if value == 0:
            yes, no = no, yes
        return self._graph.test(JSET, mask, yes, no, load=load)

    def _offset(self, word: Word) -> int:
        """Where a word stands in `struct seccomp_data`."""
        return 16 + 8 * word.argument + (4 if word.high != self._big_endian else 0)


def _given(
    clauses: Clauses, fixed: Literal, matches: bool
) -> list[tuple[tuple[Truth, ...], int]]:
    """The clauses, knowing whether the word of `fixed` matches: decides each literal with that word, mask and value."""
    test = (fixed.word, _mask_of(fixed), _value_of(fixed))
    return [
        (
            tuple(
                _given_match(one, matches)
                if not one.ordered and (one.word, _mask_of(one), _value_of(one)) == test
                else one
                for one in conditions
            ),
            node,
        )
        for conditions, node in clauses
    ]


def _simplify(clauses: Iterable[tuple[Sequence[Truth], int]], final: int) -> Clauses:
    """Drop what can't hold, what always holds and what an earlier clause already covers."""
    kept: list[tuple[tuple[Literal, ...], int]] = []
    for conditions, node in clauses:
        if any(one is False for one in conditions):
            continue
        literals = tuple(dict.fromkeys(one for one in conditions if not isinstance(one, bool)))
        if any(set(earlier) <= set(literals) for earlier, _ in kept):
            continue
        kept.append((literals, node))
        if not literals:
            break
    while kept and kept[-1][1] == final:
        kept.pop()
    return tuple(kept)
