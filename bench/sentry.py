"""`python -m bench.sentry`: boxes in a Sentry against runsc by hand, and what they cost beside L2 and no walls.

One run, samples in turn, ratios, gates. Exit status: 0, 1 a gate missed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import le

from bench import gvisor, peers, report, subjects
from bench.build import BuildError, compile_package
from bench.contender import Contender, count, in_a_row
from bench.filters import Filters, write_filters
from bench.gates import Gate, judge, missed
from bench.measure import Measured, measure
from bench.stats import percentile

CONTENDERS: dict[str, Callable[[Filters], Contender]] = {
    "immure-l3": gvisor.cold,
    "runsc": gvisor.by_hand,
    "immure-l3-exec": gvisor.ready,
    "runsc-exec": gvisor.exec_by_hand,
    "immure-l3-exec-row": partial(in_a_row, gvisor.ready),
    "runsc-exec-row": partial(in_a_row, gvisor.exec_by_hand),
    "immure-l3-pool": gvisor.pooled,
    "immure-l3-started": gvisor.started,
    "immure-l3-restored": gvisor.restored,
    "immure": subjects.fresh,
    "immure-exec": subjects.ready,
    "immure-pool": subjects.pooled,
    "vfork": peers.vfork,
    **{f"inside-{place}": partial(gvisor.inside, place) for place in gvisor.PLACES},
}
#: Memory of idle boxes: MiB each, of one and as the mean of so many. It has one sample.
MANY = 25
ONE_IDLE, MANY_IDLE = "idle-l3-1", f"idle-l3-{MANY}"
UNITS = {"MiB": [1.0], "ms": [1e6]}
FULL, QUICK = 200, 10
WARMUP = 3

GATES = (
    Gate("cold box : runsc run by hand", "immure-l3", "runsc", le, 1.15),
    Gate("command in a ready box : runsc exec, p50", "immure-l3-exec", "runsc-exec", le, 0.4),
    Gate("the same, of ten in a row, p50", "immure-l3-exec-row", "runsc-exec-row", le, 0.4),
    Gate("command in a ready box, p99 : runsc exec, p50", "immure-l3-exec", "runsc-exec", le, 1.0, at=0.99, to_at=0.5),
    Gate("claim from a pool + command : command in a ready box", "immure-l3-pool", "immure-l3-exec", le, 1.5),
    Gate("restored Python to its first result : cold", "immure-l3-restored", "immure-l3-started", le, 0.6),
    Gate(f"idle box, MiB, mean of {MANY}", MANY_IDLE, "MiB", le, 16.0),
)
#: Wanted, and no gate.
TARGETS = (Gate("command in a ready box, ms", "immure-l3-exec", "ms", le, 5.0),)


@dataclass(frozen=True)
class Cost:
    """One row of the specification's table. A source is a contender, or one and a phase of it."""

    what: str
    unit: str
    scale: float  # from ns, or from MiB
    bare: str | None
    l2: str | None
    l3: str
    ptrace: str | None = None
    claim: str = ""

    def sources(self) -> dict[str, str | None]:
        return {"bare": self.bare, "L2": self.l2, "L3": self.l3, "L3, ptrace": self.ptrace}


def _within(phase: str) -> tuple[str, str, str, str]:
    bare, l2, l3, ptrace = (f"inside-{place} {phase}" for place in gvisor.PLACES)
    return bare, l2, l3, ptrace


CPU = "+10-20 %"
COSTS = (
    Cost("cold start, to the exit of true", "ms", 1e-6, "vfork", "immure", "immure-l3", claim="50-100 ms"),
    Cost("a box of a pool, and true in it", "ms", 1e-6, "vfork", "immure-pool", "immure-l3-pool"),
    Cost("Python with imports, to a first result", "ms", 1e-6, None, None, "immure-l3-started"),
    Cost("the same, from a snapshot", "ms", 1e-6, None, None, "immure-l3-restored"),
    Cost("true in a ready box", "ms", 1e-6, "vfork", "immure-exec", "immure-l3-exec"),
    Cost("idle box, PSS, one alone", "MiB", 1, None, "idle-l2-1", ONE_IDLE, claim="+20-50 MB"),
    Cost(f"idle box, PSS, mean of {MANY}", "MiB", 1, None, f"idle-l2-{MANY}", MANY_IDLE, claim="+20-50 MB"),
    Cost("getppid", "ns", 1e-3, *_within("getppid_x1000"), claim=CPU),
    Cost("open, read, close of a small file", "µs", 1e-6, *_within("open_read_close_x1000"), claim=CPU),
    Cost("a round trip by TCP, over loopback", "µs", 1e-6, *_within("round_trip_x1000"), claim="+0.5-1 ms"),
    Cost("vfork, execve and wait of true, within", "ms", 1e-9, *_within("spawn_x1000")),
    Cost("python3 -SI -c pass", "ms", 1e-6, *_within("python"), claim=CPU),
    Cost("a loop of arithmetic", "ms", 1e-6, *_within("cpu_loop"), claim=CPU),
)
NO_NETWORK = "network latency beyond loopback: not measured, since a box has no other network"


def main() -> int:
    options = _parse()
    say = (lambda _: None) if options.json else report.say
    compile_package()
    try:
        path = gvisor.choose_runsc()
        filters = write_filters()
        contenders = [make(filters) for make in CONTENDERS.values()]
        host = report.describe_host() | {"runsc": f"{gvisor.version_of(path)} ({path})"}
        say(report.heading(host, filters, {}))
        # First, while nobody of this run shares the text of runsc.
        idle = {level: {n: gvisor.idle_kib(level, n, options.idle_s) for n in (1, MANY)} for level in ("L2", "L3")}
        rounds = options.n or (QUICK if options.quick else FULL)
        measured = measure(contenders, rounds=rounds, warmup=WARMUP, segments=0, segment_ms=0)
    except (BuildError, FileNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1

    series = series_of(measured, idle)
    verdicts, targets = judge(series, GATES), judge(series, TARGETS)
    if options.json:
        document = report.as_json(host, filters, {}, contenders, {}, measured, [*verdicts, *targets])
        document |= {"costs": cost_rows(series), "idle_kib": idle, "targets": [one.gate.what for one in targets]}
        print(json.dumps(document, indent=1))
    else:
        report.print_tables(contenders, measured, verdicts)
        say(idle_text(idle))
        say(cost_table(cost_rows(series)))
        for one in targets:
            say(f"target, no gate: {one.gate.what} {one.gate.wanted}: {_shown(one.ratio and one.ratio.value)}")
    return int(bool(measured.failed) or missed(verdicts, {*series, *CONTENDERS}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sentry", description=__doc__)
    parser.add_argument("--n", type=count, metavar="N", help=f"samples of each (default {FULL})")
    parser.add_argument("--quick", action="store_true", help="few samples: does it work, not how fast is it")
    parser.add_argument("--idle-s", type=float, default=1.0, metavar="S", help="how long a box is idle (default 1)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    return parser.parse_args()


Idle = Mapping[str, Mapping[int, Mapping[str, float]]]


def series_of(measured: Measured, idle: Idle) -> dict[str, list[float]]:
    """By name: times in ns, phases as `NAME PHASE`, memory in MiB, and the units of what is no ratio."""
    series = {**measured.series(), **UNITS}
    for name, samples in measured.samples.items():
        for phase in samples[0].phases:
            series[f"{name} {phase}"] = [sample.phases[phase] for sample in samples]
    for level, counts in idle.items():
        for number, kib in counts.items():
            series[f"idle-{level.lower()}-{number}"] = [kib["all"] / 1024]
    return series


def cost_rows(series: Mapping[str, Sequence[float]]) -> list[dict[str, object]]:
    """Medians, and their ratios to L2 and to bare. What was not measured is None."""
    rows: list[dict[str, object]] = []
    for cost in COSTS:
        found = {place: _median(series, source, cost.scale) for place, source in cost.sources().items()}
        rows.append(
            {
                "what": cost.what,
                "unit": cost.unit,
                "p50": found,
                "l3_to_l2": _quotient(found["L3"], found["L2"]),
                "l3_to_bare": _quotient(found["L3"], found["bare"]),
                "claimed": cost.claim,
            }
        )
    return rows


def _median(series: Mapping[str, Sequence[float]], source: str | None, scale: float) -> float | None:
    values = series.get(source) if source else None
    return percentile(sorted(values), 0.5) * scale if values else None


def _quotient(of: float | None, to: float | None) -> float | None:
    return of / to if of is not None and to else None


def cost_table(rows: Sequence[Mapping[str, object]]) -> str:
    places = list(COSTS[0].sources())
    header = "".join(f"{place:>12}" for place in places)
    lines = [f"{'what it costs, p50':40}{header}{'L3 : L2':>10}{'L3 : bare':>11}  claimed"]
    for row in rows:
        found: Mapping[str, float | None] = row["p50"]  # type: ignore[assignment]
        cells = "".join(f"{_shown(found[place]):>12}" for place in places)
        ratios = f"{_shown(row['l3_to_l2']):>10}{_shown(row['l3_to_bare']):>11}"
        lines.append(f"{row['what']}, {row['unit']}".ljust(40) + f"{cells}{ratios}  {row['claimed']}".rstrip())
    return "\n".join([*lines, NO_NETWORK])


def idle_text(idle: Idle) -> str:
    """The gate is the mean of many: a box that is alone pays for all of runsc's text, which others share."""
    lines = [f"{'idle box, PSS in MiB each':30}{'all':>8}{'of files':>10}{'other':>8}"]
    for level, counts in idle.items():
        for number, kib in counts.items():
            rest = kib["all"] - kib["files"]
            cells = f"{kib['all'] / 1024:8.2f}{kib['files'] / 1024:10.2f}{rest / 1024:8.2f}"
            lines.append(f"{f'{level}, {number} at once':30}{cells}")
    return "\n".join(lines)


def _shown(value: object) -> str:
    if not isinstance(value, int | float):
        return "·"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


if __name__ == "__main__":
    sys.exit(main())
