"""What must be reached, as ratios within one run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt

from bench.stats import Ratio, ratio_of

SIGNS = {le: "≤", lt: "<", ge: "≥", gt: ">"}


@dataclass(frozen=True)
class Gate:
    what: str
    of: str  # the series: "NAME" in ns, "NAME/s" in boxes per second
    to: str
    holds: Callable[[float, float], bool]
    bound: float
    stretch: float | None = None
    at: float = 0.5  # the percentile that is compared
    to_at: float | None = None  # that of the other, where it is another one

    @property
    def wanted(self) -> str:
        return f"{SIGNS[self.holds]} {self.bound:g}"


@dataclass(frozen=True)
class Verdict:
    gate: Gate
    ratio: Ratio | None  # None: one of the two was not measured

    @property
    def state(self) -> str:
        if self.ratio is None:
            return "not measured"
        if not self.gate.holds(self.ratio.value, self.gate.bound):
            return "MISSED"
        if self.gate.stretch is not None and self.gate.holds(self.ratio.value, self.gate.stretch):
            return "met, stretch too"
        return "met"


GATES = (
    Gate("fresh box : safe floor", "immure", "floor", le, 1.5, 1.2),
    Gate("fresh box : bwrap", "immure", "bwrap", lt, 0.5),
    Gate("command in a ready box : vfork + exec, p50", "immure-exec", "vfork", le, 1.4),
    Gate("the same, of ten in a row, p50", "immure-exec-row", "vfork-row", le, 1.4),
    Gate("command in a ready box : vfork + exec, p99", "immure-exec", "vfork", le, 4.0, at=0.99),
    Gate("claim from a pool + command : command in a ready box", "immure-pool", "immure-exec", le, 1.5),
    Gate("boxes/s : safe floor's", "immure/s", "floor/s", ge, 0.6, 0.8),
    Gate("boxes/s : bwrap's", "immure/s", "bwrap/s", gt, 2.0),
    Gate("whole command line : python3 -SI -c pass", "immure-cli", "python", le, 4.5, 3.5),
)


def judge(series: Mapping[str, Sequence[float]], gates: Sequence[Gate] = GATES) -> list[Verdict]:
    return [Verdict(gate, _ratio(gate, series.get(gate.of), series.get(gate.to))) for gate in gates]


def missed(verdicts: Sequence[Verdict], asked: set[str]) -> bool:
    """A gate that could not be measured is missed, unless what it compares was not asked for."""
    judged = [v for v in verdicts if {v.gate.of.split("/")[0], v.gate.to.split("/")[0]} <= asked]
    return any(v.state not in ("met", "met, stretch too") for v in judged)


def _ratio(gate: Gate, of: Sequence[float] | None, to: Sequence[float] | None) -> Ratio | None:
    return ratio_of(of, to, at=gate.at, to_at=gate.to_at) if of and to else None
