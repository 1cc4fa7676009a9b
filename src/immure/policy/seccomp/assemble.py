"""Last pass: decision graph → instructions.

BPF jumps forward only, and a conditional jump reaches 255 instructions. The program is written from its end:
a node's children stand before it in the graph, so they are already placed when their distance is needed.
"""

from __future__ import annotations

from .bpf import AND, JA, LOAD, RET, Instruction
from .graph import Branch, Graph, Node, Return

_REACH = 255


class _Tail:
    """The end of the program, last instruction first."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self.reversed: list[Instruction] = []
        self._places: dict[int, int] = {}

    def place(self, index: int) -> None:
        node = self._nodes[index]
        if isinstance(node, Return):
            self.reversed.append(Instruction(RET, 0, 0, node.value))
        else:
            self._place_branch(node)
        self._places[index] = len(self.reversed)

    def _place_branch(self, node: Branch) -> None:
        # Bringing one target near moves the other one away by an instruction: hence the room of one.
        self._bring_near(node.yes, _REACH - 1)
        self._bring_near(node.no, _REACH)
        self.reversed.append(Instruction(node.op, self._distance(node.yes), self._distance(node.no), node.k))
        if node.mask is not None:
            self.reversed.append(Instruction(AND, 0, 0, node.mask))
        if node.load is not None:
            self.reversed.append(Instruction(LOAD, 0, 0, node.load))

    def _bring_near(self, index: int, reach: int) -> None:
        """Give a target out of reach a stand-in: a jump, or a copy where it is a return (a step less)."""
        if self._distance(index) <= reach:
            return
        node = self._nodes[index]
        if isinstance(node, Return):
            self.reversed.append(Instruction(RET, 0, 0, node.value))
        else:
            self.reversed.append(Instruction(JA, 0, 0, self._distance(index)))
        self._places[index] = len(self.reversed)

    def _distance(self, index: int) -> int:
        return len(self.reversed) - self._places[index]


def assemble(graph: Graph, root: int) -> tuple[Instruction, ...]:
    """The program that begins at node `root`; nodes that it doesn't reach are left out."""
    tail = _Tail(graph.nodes)
    for index in sorted(_reachable(graph.nodes, root)):
        tail.place(index)
    return tuple(reversed(tail.reversed))


def _reachable(nodes: list[Node], root: int) -> set[int]:
    found: set[int] = set()
    waiting = [root]
    while waiting:
        index = waiting.pop()
        if index in found:
            continue
        found.add(index)
        node = nodes[index]
        if isinstance(node, Branch):
            waiting += (node.yes, node.no)
    return found
