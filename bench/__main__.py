"""`python -m bench`: one run, samples in turn, ratios, gates. Exit status: 0, 1 a gate missed, 2 usage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import peers, report, rivals, subjects, walls
from bench.build import BuildError, compile_package
from bench.contender import Contender
from bench.filters import Filters, write_filters
from bench.gates import Verdict, judge
from bench.measure import Measured, measure

CONTENDERS: dict[str, Callable[[Filters], Contender]] = {
    "immure": subjects.fresh,
    "floor": peers.floor,
    "bwrap": peers.bwrap,
    "immure-l1": subjects.bare,
    "immure-exec": subjects.ready,
    "immure-pool": subjects.pooled,
    "vfork": peers.vfork,
    "immure-cli": subjects.cli,
    "python": peers.python,
    **{rival.name: rival.contender for rival in rivals.RIVALS},
}
FULL = {"rounds": 500, "warmup": 20, "segments": 12, "segment_ms": 500}
QUICK = {"rounds": 60, "warmup": 5, "segments": 4, "segment_ms": 300}


def main() -> int:
    options = _parse()
    sizes = QUICK if options.quick else FULL
    if options.n:
        sizes = {**sizes, "rounds": options.n}
    say = (lambda *_: None) if options.json else _say

    compile_package()
    try:
        filters = _filters(options.filter)
        absent = {name: install for name, install in rivals.absent().items() if name in options.only}
        contenders = [CONTENDERS[name](filters) for name in options.only if name not in absent]
        host = report.describe_host()
        say(report.heading(host, filters, absent))
        stood = walls.inspect(filters, {c.name for c in contenders})
        if stood:
            say(report.walls_table(stood))
        breached = _breached(stood)
        if breached or options.walls:
            print(breached or "all walls of the floor hold", file=sys.stderr)
            return int(bool(breached))
        measured = measure(contenders, **sizes)
    except (BuildError, walls.NothingSeen, FileNotFoundError, ImportError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1

    verdicts = judge(_series(measured))
    if options.json:
        print(json.dumps(report.as_json(host, filters, absent, contenders, stood, measured, verdicts), indent=1))
    else:
        _print(contenders, measured, verdicts)
    return int(_missed(verdicts, measured, set(options.only)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--n", type=_count, metavar="N", help=f"samples of each (default {FULL['rounds']})")
    parser.add_argument("--quick", action="store_true", help="few samples: does it work, not how fast is it")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    parser.add_argument("--walls", action="store_true", help="show what holds, measure nothing")
    parser.add_argument("--only", type=_names, default=list(CONTENDERS), metavar="NAME,…", help=", ".join(CONTENDERS))
    parser.add_argument(
        "--filter",
        type=Path,
        metavar="FILTER",
        help="a packed sock_filter file instead of our own default profile with the guard",
    )
    return parser.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: a number from 1 on is needed")
    return int(text)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(CONTENDERS)}")
    return names


def _filters(given: Path | None) -> Filters:
    return Filters(given.absolute(), f"{given.name}, given by hand") if given else write_filters()


def _breached(stood: dict[str, dict[str, str]]) -> str:
    """A fast box without walls must never become a number. (Peers may lack walls: it is shown.)"""
    held = {name: {what for what, v in seen.items() if v == "held"} for name, seen in stood.items()}
    lines = [
        f"bench: {name}: not held: {', '.join(missing)}"
        for name in ("floor", "immure")
        if name in stood and (missing := [what for what in stood[name] if what not in held[name]])
    ]
    return "\n".join(lines)


def _series(measured: Measured) -> dict[str, list[float]]:
    times = {name: measured.totals(name) for name in measured.samples}
    return times | {f"{name}/s": rates for name, rates in measured.rates.items()}


def _missed(verdicts: Sequence[Verdict], measured: Measured, asked: set[str]) -> bool:
    """A gate that could not be measured is missed, unless its contenders were left out by `--only`."""
    judged = [v for v in verdicts if {v.gate.of.split("/")[0], v.gate.to.split("/")[0]} <= asked]
    ours = measured.failed.keys() - {rival.name for rival in rivals.RIVALS}
    return bool(ours) or any(v.state not in ("met", "met, stretch too") for v in judged)


def _print(contenders: Sequence[Contender], measured: Measured, verdicts: Sequence[Verdict]) -> None:
    _say(report.times_table(contenders, measured))
    if measured.rates:
        _say(report.rates_table(contenders, measured))
    for contender in contenders:
        if phases := report.phases_table(contender, measured):
            _say(phases)
    _say(report.gates_table(verdicts))
    for why in measured.failed.values():
        print(f"bench: {why}", file=sys.stderr)


def _say(text: str) -> None:
    print(text, end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
