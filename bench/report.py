"""The report, as text and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from bench.contender import Contender
from bench.filters import Filters
from bench.gates import Verdict
from bench.measure import WORKERS_PER_RATE, Measured
from bench.stats import Summary, ratio_of, summarize

REFERENCES = ("floor", "bwrap", "vfork", "python", "runsc", "runsc-exec")
RATE = f"boxes/s, {WORKERS_PER_RATE} workers"


def describe_host() -> dict[str, str | int | float]:
    return {
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "uid": os.getuid(),
        "python": platform.python_version(),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def rows(contenders: Sequence[Contender], measured: Measured) -> list[dict[str, object]]:
    """One row a contender, one a phase of it, one a rate; times in microseconds."""
    table: list[dict[str, object]] = []
    for contender in contenders:
        samples = measured.samples.get(contender.name)
        if samples:
            totals = measured.totals(contender.name)
            table.append(_row(contender, "total", totals, 1e-3, _ratios(contender, measured)))
            for phase in samples[0].phases:
                table.append(_row(contender, phase, [s.phases[phase] for s in samples], 1e-3, {}))
        rates = measured.rates.get(contender.name)
        if rates:
            table.append(_row(contender, RATE, rates, 1, _rate_ratios(contender, measured)))
    return table


def _row(
    contender: Contender, phase: str, values: Sequence[float], scale: float, ratio_to: Mapping[str, float]
) -> dict[str, object]:
    return {
        "level": contender.level,
        "runtime": contender.name,
        "phase": phase,
        **asdict(summarize([value * scale for value in values])),
        "command": contender.command,
        "ratio_to": dict(ratio_to),
    }


def _ratios(contender: Contender, measured: Measured) -> dict[str, float]:
    own = measured.totals(contender.name)
    return {
        name: round(ratio_of(own, measured.totals(name), resamples=1).value, 3)
        for name in REFERENCES
        if name != contender.name and name in measured.samples
    }


def _rate_ratios(contender: Contender, measured: Measured) -> dict[str, float]:
    own = measured.rates[contender.name]
    return {
        name: round(ratio_of(own, measured.rates[name], resamples=1).value, 3)
        for name in REFERENCES
        if name != contender.name and name in measured.rates
    }


def as_json(
    host: Mapping[str, object],
    filters: Filters,
    absent: Mapping[str, str],
    contenders: Sequence[Contender],
    walls: Mapping[str, Mapping[str, str]],
    measured: Measured,
    verdicts: Sequence[Verdict],
) -> dict[str, object]:
    return {
        "schema": "immure.bench/v1",
        "host": dict(host),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "filters": filters.title,
        "walls": walls,
        "rows": rows(contenders, measured),
        "gates": [
            {
                "gate": verdict.gate.what,
                "percentile": verdict.gate.at,
                "wanted": verdict.gate.wanted,
                "stretch": verdict.gate.stretch,
                "ratio": asdict(verdict.ratio) if verdict.ratio else None,
                "state": verdict.state,
            }
            for verdict in verdicts
        ],
        "failed": measured.failed,
        "absent": dict(absent),
        "error": None,
    }


def heading(host: Mapping[str, object], filters: Filters, absent: Mapping[str, str]) -> str:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{now} · {host['kernel']} · {host['cpus']} cpus, {host['cpu']} · uid {host['uid']} · "
        f"Python {host['python']} · load {host['load_1min']}\nfilters: {filters.title}"
        + (f"\nrunsc: {host['runsc']}" if "runsc" in host else "")
        + "".join(f"\nabsent: {name} ({install})" for name, install in absent.items())
    )


def walls_table(walls: Mapping[str, Mapping[str, str]]) -> str:
    width = max(len(what) for verdicts in walls.values() for what in verdicts)
    lines = [f"{'walls, by attempt':{width}}  " + "  ".join(f"{name:13}" for name in walls)]
    for what in next(iter(walls.values())):
        lines.append(f"{what:{width}}  " + "  ".join(f"{walls[name][what]:13}" for name in walls))
    return "\n".join(line.rstrip() for line in lines)


def times_table(contenders: Sequence[Contender], measured: Measured) -> str:
    shown = [c for c in contenders if c.name in measured.samples]
    width = max((len(c.title) for c in shown), default=0)
    references = [name for name in REFERENCES if name in measured.samples]
    header = f"{'ms, in turn':{width}}  {'p10':>8} {'p50':>8} {'p99':>8} {'n':>6}"
    lines = [header + "".join(f"{':' + name:>{_wide(name)}}" for name in references)]
    for contender in shown:
        summary = summarize([ns / 1e6 for ns in measured.totals(contender.name)])
        ratios = _ratios(contender, measured)
        cells = (
            f"{ratios[name]:{_wide(name)}.2f}" if name in ratios else f"{'·':>{_wide(name)}}" for name in references
        )
        lines.append(f"{contender.title:{width}}  {_figures(summary, 3)}" + "".join(cells))
    return "\n".join(lines)


def rates_table(contenders: Sequence[Contender], measured: Measured) -> str:
    shown = [c for c in contenders if c.name in measured.rates]
    width = max((len(c.title) for c in shown), default=0)
    lines = [f"{RATE:{width}}  {'p10':>8} {'p50':>8} {'p99':>8} {'n':>6}"]
    for contender in shown:
        lines.append(f"{contender.title:{width}}  {_figures(summarize(measured.rates[contender.name]), 0)}")
    return "\n".join(lines)


def phases_table(contender: Contender, measured: Measured) -> str:
    samples = measured.samples.get(contender.name)
    if not samples or not samples[0].phases:
        return ""
    lines = [f"{'µs within: ' + contender.title:42}  {'p10':>8} {'p50':>8} {'p99':>8} {'n':>6}"]
    for phase in samples[0].phases:
        summary = summarize([sample.phases[phase] / 1e3 for sample in samples])
        lines.append(f"  {phase:40}  {_figures(summary, 1)}")
    return "\n".join(lines)


def gates_table(verdicts: Sequence[Verdict]) -> str:
    width = max((len(verdict.gate.what) for verdict in verdicts), default=0)
    lines = [f"{'gate':{width}} {'wanted':>7} {'stretch':>8} {'ratio':>7}  {'95 %':14}  verdict"]
    for verdict in verdicts:
        gate, ratio = verdict.gate, verdict.ratio
        stretch = "·" if gate.stretch is None else f"{gate.stretch:g}"
        value = f"{ratio.value:.2f}" if ratio else "·"
        interval = f"{ratio.low:.2f} to {ratio.high:.2f}" if ratio else ""
        lines.append(f"{gate.what:{width}} {gate.wanted:>7} {stretch:>8} {value:>7}  {interval:14}  {verdict.state}")
    return "\n".join(lines)


def print_tables(contenders: Sequence[Contender], measured: Measured, verdicts: Sequence[Verdict]) -> None:
    say(times_table(contenders, measured))
    if measured.rates:
        say(rates_table(contenders, measured))
    for contender in contenders:
        if phases := phases_table(contender, measured):
            say(phases)
    say(gates_table(verdicts))
    for why in measured.failed.values():
        print(f"bench: {why}", file=sys.stderr)


def say(text: str) -> None:
    print(text, end="\n\n", flush=True)


def _wide(reference: str) -> int:
    return max(8, len(reference) + 2)


def _figures(summary: Summary, digits: int) -> str:
    return f"{summary.p10:8.{digits}f} {summary.p50:8.{digits}f} {summary.p99:8.{digits}f} {summary.n:6d}"
