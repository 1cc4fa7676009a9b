"""`python -m bench.machine`: boxes in virtual machines against QEMU by hand. One run, samples in turn, ratios, gates.

Exit status: 0, 1 a gate missed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from operator import le

from bench import machines, report
from bench.build import BuildError, compile_package
from bench.contender import Contender, count
from bench.filters import Filters, write_filters
from bench.gates import Gate, judge, missed
from bench.measure import measure
from immure.engine.kvm import kvm_facts

CONTENDERS: dict[str, Callable[[Filters], Contender]] = {
    "immure-machine": machines.cold,
    "qemu": machines.by_hand,
    "immure-machine-exec": machines.ready,
    "immure-machine-pool": machines.pooled,
}
UNITS = {"ms": [1e6]}
FULL, QUICK = 40, 5
WARMUP = 1
GATES = (
    Gate("cold box : QEMU by hand, whose guest ends at once", "immure-machine", "qemu", le, 1.2),
    Gate("claim from a pool + command, ms", "immure-machine-pool", "ms", le, 10.0),
)


def main() -> int:
    options = _parse()
    say = (lambda _: None) if options.json else report.say
    compile_package()
    try:
        kernel = machines.choose_kernel()
        filters = write_filters()
        contenders = [make(filters) for make in CONTENDERS.values()]
        host = report.describe_host() | {"kernel": kernel, "kvm": kvm_facts().kind}
        say(report.heading(host, filters, {}))
        rounds = options.n or (QUICK if options.quick else FULL)
        measured = measure(contenders, rounds=rounds, warmup=WARMUP, segments=0, segment_ms=0)
    except (BuildError, FileNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    series = {**measured.series(), **UNITS}
    verdicts = judge(series, GATES)
    if options.json:
        print(json.dumps(report.as_json(host, filters, {}, contenders, {}, measured, verdicts), indent=1))
    else:
        report.print_tables(contenders, measured, verdicts)
    return int(bool(measured.failed) or missed(verdicts, {*series, *CONTENDERS}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.machine", description=__doc__)
    parser.add_argument("--n", type=count, metavar="N", help=f"samples of each (default {FULL})")
    parser.add_argument("--quick", action="store_true", help="few samples: does it work, not how fast is it")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
