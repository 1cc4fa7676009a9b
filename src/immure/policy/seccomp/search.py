"""Decision tree over the values of one word: intervals of values → comparisons, balanced.

Used for call numbers and for the words of arguments alike. With n intervals a plain search tree needs n - 1
JGE tests. A value that stands alone between equal neighbours is cheaper with one JEQ in front of them, so
intervals are first grouped into clusters `A b A c A`, each a few JEQ tests and one rest, such that the total
is least.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .bpf import FULL, JEQ, JGE
from .graph import Graph

Interval = tuple[int, int]
"""The first value, and the node for it and its successors. A list of them is in order and begins at 0."""

_END = FULL + 1
_MOST_SINGLES = 3
"""JEQ tests per cluster. More would save instructions but lengthen the way through them."""


class _Cluster(NamedTuple):
    start: int
    rest: int
    singles: tuple[Interval, ...]


def search(graph: Graph, intervals: Sequence[Interval], *, load: int | None = None) -> int:
    """The node that finds the interval of the word at `load`, or of the accumulator where `load` is None."""
    return _tree(graph, _clusters(merge(intervals)), load)


def merge(intervals: Sequence[Interval]) -> list[Interval]:
    """The same map without borders between equal neighbours."""
    merged: list[Interval] = []
    for start, node in intervals:
        if not merged or merged[-1][1] != node:
            merged.append((start, node))
    return merged


def _tree(graph: Graph, clusters: Sequence[_Cluster], load: int | None) -> int:
    if len(clusters) == 1:
        return _leaf(graph, clusters[0], load)
    middle = _middle(clusters)
    below = _tree(graph, clusters[:middle], None)
    above = _tree(graph, clusters[middle:], None)
    return graph.test(JGE, clusters[middle].start, above, below, load=load)


def _leaf(graph: Graph, cluster: _Cluster, load: int | None) -> int:
    node = cluster.rest
    for position, (value, target) in enumerate(reversed(cluster.singles), 1):
        first = position == len(cluster.singles)
        node = graph.test(JEQ, value, target, node, load=load if first else None)
    return node


def _middle(clusters: Sequence[_Cluster]) -> int:
    """Where to split so that clusters with many JEQ end up nearer to the root: half of Kraft's sum."""
    weights = [1 << len(cluster.singles) for cluster in clusters]
    total, seen = sum(weights), 0
    best, best_gap = 1, total
    for position, weight in enumerate(weights[:-1], 1):
        seen += weight
        gap = abs(total - 2 * seen)
        if gap < best_gap:
            best, best_gap = position, gap
    return best


def _clusters(intervals: Sequence[Interval]) -> list[_Cluster]:
    """The cheapest grouping: dynamic programming over where the last cluster begins."""
    cost = [0] + [_END] * len(intervals)
    last: list[_Cluster | None] = [None] * (len(intervals) + 1)
    begins = [0] * (len(intervals) + 1)
    for begin in range(len(intervals)):
        for end, cluster in _clusters_from(intervals, begin):
            total = cost[begin] + 1 + len(cluster.singles)
            if total < cost[end]:
                cost[end], last[end], begins[end] = total, cluster, begin
    found: list[_Cluster] = []
    end = len(intervals)
    while (cluster := last[end]) is not None:
        found.append(cluster)
        end = begins[end]
    return found[::-1]


def _clusters_from(intervals: Sequence[Interval], begin: int) -> list[tuple[int, _Cluster]]:
    """Every cluster that begins with interval `begin`, with the index behind its end."""
    start = intervals[begin][0]
    bases = dict.fromkeys(node for _, node in intervals[begin : begin + _MOST_SINGLES + 1])
    found: list[tuple[int, _Cluster]] = []
    for base in bases:
        singles: list[Interval] = []
        for index in range(begin, len(intervals)):
            value, node = intervals[index]
            if node != base:
                if len(singles) == _MOST_SINGLES or _end(intervals, index) != value + 1:
                    break
                singles.append((value, node))
            found.append((index + 1, _Cluster(start, base, tuple(singles))))
    return found


def _end(intervals: Sequence[Interval], index: int) -> int:
    return intervals[index + 1][0] if index + 1 < len(intervals) else _END
