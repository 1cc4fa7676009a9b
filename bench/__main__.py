"""`python -m bench`: one run, samples in turn, ratios, gates. Exit status: 0, 1 a gate missed, 2 usage."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import peers, report, rivals, subjects, walls
from bench.build import BuildError, compile_package
from bench.contender import Contender, count, in_a_row
from bench.filters import Filters, write_filters
from bench.gates import Verdict, judge, missed
from bench.measure import Measured, measure

CONTENDERS: dict[str, Callable[[Filters], Contender]] = {
    "immure": subjects.fresh,
    "floor": peers.floor,
    "bwrap": peers.bwrap,
    "immure-l1": subjects.bare,
    "immure-exec": subjects.ready,
    "immure-exec-row": partial(in_a_row, subjects.ready),
    "immure-pool": subjects.pooled,
    "vfork": peers.vfork,
    "vfork-row": partial(in_a_row, peers.vfork),
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
    say = (lambda *_: None) if options.json else report.say

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

    verdicts = judge(measured.series())
    if options.json:
        print(json.dumps(report.as_json(host, filters, absent, contenders, stood, measured, verdicts), indent=1))
    else:
        report.print_tables(contenders, measured, verdicts)
    return int(_missed(verdicts, measured, set(options.only)))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--n", type=count, metavar="N", help=f"samples of each (default {FULL['rounds']})")
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


def _missed(verdicts: Sequence[Verdict], measured: Measured, asked: set[str]) -> bool:
    ours = measured.failed.keys() - {rival.name for rival in rivals.RIVALS}
    return bool(ours) or missed(verdicts, asked)


if __name__ == "__main__":
    sys.exit(main())
