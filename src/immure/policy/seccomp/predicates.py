"""Predicates on 64-bit arguments → decision graph.

BPF sees words of 32 bits, so a condition is decided in two steps, its high word first: `arg >= v` is true,
false or `low >= low(v)` once the high word is known. Fixing one word at a time (Shannon's expansion, over
intervals of values instead of bits) turns a list of clauses into smaller lists; equal lists share one node.
"""

from __future__ import annotations

from collections.abc import Sequence

from .bpf import JEQ, JSET
from .graph import Branch, Graph
from .literal import Clauses, Literal, Word, cells, fix_match, fix_value, literal, simplify
from .profile import Arg
from .search import Interval, search

_MANY_MASKS = 48
"""Masks are fixed one inside the other; past this many, clause by clause is the better program too."""


class _TooWide(Exception):
    """Fixing word after word makes too many cases of these clauses."""


class Predicates:
    """Compiles clauses into `graph`. `one_by_one` makes the smallest program, with longer paths."""

    def __init__(self, graph: Graph, *, big_endian: bool = False, one_by_one: bool = False) -> None:
        self._graph = graph
        self._big_endian = big_endian
        self._one_by_one = one_by_one
        self._memo: dict[tuple[Clauses, int, Word | None], int] = {}
        self._most_nodes = 0

    def decide(self, clauses: Sequence[tuple[Sequence[Arg], int]], final: int) -> int:
        """The node that goes to the first clause of which every condition holds, else to `final`."""
        known = simplify([(tuple(map(literal, conditions)), node) for conditions, node in clauses], final)
        literals = [one for conditions, _ in known for one in conditions]
        masks = sum(not one.is_interval for one in literals)
        if not self._one_by_one and masks <= _MANY_MASKS:
            self._most_nodes = len(self._graph.nodes) + 64 + 8 * len(literals)
            try:
                return self._decide(known, final, None)
            except _TooWide:
                pass
        return self._chain(known, final)

    def _chain(self, clauses: Clauses, final: int) -> int:
        """Clause after clause: about four nodes per condition, whatever the clauses."""
        self._most_nodes = 2**30
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
            if len(self._graph.nodes) > self._most_nodes:
                raise _TooWide
            node = self._memo[key] = self._expand(clauses, final, held)
        return node

    def _expand(self, clauses: Clauses, final: int, held: Word | None) -> int:
        """Fix one word: the held one as long as a condition looks at it, else that of the first condition."""
        literals = [one for conditions, _ in clauses for one in conditions]
        first = literals[0].word
        word = held if held is not None and any(one.word == held for one in literals) else first
        here = [one for one in literals if one.word == word]
        load = None if word == held else self._offset(word)
        if any(one.is_interval for one in here):
            return self._by_interval(clauses, final, word, load)
        return self._by_mask(clauses, final, here[0], load)

    def _by_interval(self, clauses: Clauses, final: int, word: Word, load: int | None) -> int:
        intervals: list[Interval] = []
        for start, alone, candidates in cells(clauses, word):
            rest = simplify(fix_value(candidates, word, start, alone=alone), final)
            intervals.append((start, self._decide(rest, final, word)))
        return self._loaded(search(self._graph, intervals, load=load), load)

    def _by_mask(self, clauses: Clauses, final: int, fixed: Literal, load: int | None) -> int:
        mask, value = fixed.word_mask, fixed.word_value
        by_bit = value == 0 or (value == mask and mask.bit_count() == 1)
        # AND overwrites the accumulator, JSET leaves it.
        held = fixed.word if by_bit else None
        yes = self._decide(simplify(fix_match(clauses, fixed, True), final), final, held)
        no = self._decide(simplify(fix_match(clauses, fixed, False), final), final, held)
        if not by_bit:
            return self._graph.test(JEQ, value, yes, no, load=load, mask=mask)
        if value == 0:
            yes, no = no, yes
        return self._loaded(self._graph.test(JSET, mask, yes, no, load=load), load)

    def _loaded(self, index: int, load: int | None) -> int:
        """A comparison that decided nothing is left out; what follows it still counts on its word."""
        node = self._graph.nodes[index]
        if load is None or not isinstance(node, Branch) or node.load is not None:
            return index
        return self._graph.test(node.op, node.k, node.yes, node.no, load=load, mask=node.mask)

    def _offset(self, word: Word) -> int:
        """Where a word stands in `struct seccomp_data`."""
        return 16 + 8 * word.argument + (4 if word.high != self._big_endian else 0)
