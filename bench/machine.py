"""`python -m bench.machine`: boxes in virtual machines against QEMU by hand. One run, samples in turn, ratios, gates.

Exit status: 0, 1 a gate missed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from operator import ge, le

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
    "immure-machine-fork": machines.forked,
    "immure-machine-file": machines.file_in,
    "qemu-port": machines.port_by_hand,
}
#: Memory above the guests' own pages: MiB each, the mean of so many machines. It has one sample.
IDLE = 5
OVERHEAD = "machine-overhead"
UNITS = {"ms": [1e6], "MiB": [1.0]}
FULL, QUICK = 40, 5
WARMUP = 1
GATES = (
    Gate("cold box : QEMU by hand, whose guest ends at once", "immure-machine", "qemu", le, 1.2),
    Gate("claim from a pool + command, ms", "immure-machine-pool", "ms", le, 10.0),
    Gate("fork of a running machine + command, ms", "immure-machine-fork", "ms", le, 160.0),
    Gate("100 MiB in by hand : box.files.write", "qemu-port", "immure-machine-file", ge, 0.3),
    Gate(f"memory above the guest's, MiB, mean of {IDLE}", OVERHEAD, "MiB", le, 40.0),
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
        idle = machines.overhead_kib(IDLE)
        measured = measure(contenders, rounds=rounds, warmup=WARMUP, segments=0, segment_ms=0)
    except (BuildError, FileNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    series = {**measured.series(), **UNITS, OVERHEAD: [idle["above"] / 1024]}
    verdicts = judge(series, GATES)
    if options.json:
        print(json.dumps(report.as_json(host, filters, {}, contenders, {}, measured, verdicts), indent=1))
    else:
        report.print_tables(contenders, measured, verdicts)
        guest, above = (f"{idle[name] / 1024:.1f} MiB" for name in ("guest", "above"))
        say(f"idle machine: {guest} of the guest's pages, {above} beside them")
    return int(bool(measured.failed) or missed(verdicts, {*series, *CONTENDERS}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.machine", description=__doc__)
    parser.add_argument("--n", type=count, metavar="N", help=f"samples of each (default {FULL})")
    parser.add_argument("--quick", action="store_true", help="few samples: does it work, not how fast is it")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
