"""The decision graph between the passes and BPF: a DAG in which equal nodes are one node.

A node is an index into `Graph.nodes`; children are made before parents, so indexes are a topological order.
"""

from __future__ import annotations

from typing import NamedTuple

from .bpf import JSET


class Return(NamedTuple):
    """End with a return value."""

    value: int


class Branch(NamedTuple):
    """Compare the accumulator with `k`; before, load the word at `load` and mask it, where given."""

    op: int
    k: int
    yes: int
    no: int
    load: int | None = None
    mask: int | None = None


Node = Return | Branch


class Graph:
    """Makes nodes. The same node asked for twice is the same index."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Node, int] = {}

    def ret(self, value: int) -> int:
        """A node that returns `value`."""
        return self._intern(Return(value))

    def test(self, op: int, k: int, yes: int, no: int, *, load: int | None = None, mask: int | None = None) -> int:
        """A node that goes to `yes` where the comparison holds, else to `no`."""
        if yes == no:
            return yes
        if op == JSET and mask is None:
            k, yes, no = self._widen(k, yes, no)
        return self._intern(Branch(op, k, yes, no, load, mask))

    def _widen(self, k: int, yes: int, no: int) -> tuple[int, int, int]:
        """`any of these bits, else any of those` is one test of all of them."""
        below = self.nodes[no]
        if isinstance(below, Branch) and below == Branch(JSET, below.k, yes, below.no):
            return k | below.k, yes, below.no
        return k, yes, no

    def _intern(self, node: Node) -> int:
        index = self._known.get(node)
        if index is None:
            index = self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return index
