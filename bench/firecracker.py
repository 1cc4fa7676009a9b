"""`python -m bench.firecracker`: Firecracker through our client and jail, against the same by hand. As root.

From Python to the guest's first byte, and from a snapshot to its init's answer: one run, samples in turn, gates.
Exit status: 0, 1 a gate missed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from operator import le

from bench import firecrackers, report, restores
from bench.build import BuildError, compile_package
from bench.contender import Contender, count
from bench.filters import Filters, write_filters
from bench.gates import Gate, judge, missed
from bench.measure import measure
from immure.engine.kvm import kvm_facts

CONTENDERS: dict[str, Callable[[Filters], Contender]] = {
    "firecracker-client": firecrackers.client,
    "firecracker-by-hand": firecrackers.by_hand,
    "firecracker-jailed": firecrackers.jailed,
    "firecracker-jailed-by-hand": firecrackers.jailed_by_hand,
    "firecracker-restore": restores.restored,
    "firecracker-restore-box": restores.restored_whole,
    "firecracker-restore-by-hand": restores.restored_by_hand,
}
UNITS = {"ms": [1e6], "MB": [1e6]}
FULL, QUICK = 60, 5
MEMORY_SAMPLES = 5
WARMUP = 1
#: What is measured less what stands beside it, pair by pair.
MORE = {
    "client more": ("firecracker-client", "firecracker-by-hand"),
}
GATES = (
    Gate("our client : the API by hand and so many ms", "client more", "ms", le, 5.0),
    Gate(
        "our jail : the jailer by hand, with the same walls",
        "firecracker-jailed",
        "firecracker-jailed-by-hand",
        le,
        1.5,
    ),
    Gate(
        "restore to the init's first answer : the API by hand",
        "firecracker-restore",
        "firecracker-restore-by-hand",
        le,
        1.3,
    ),
    Gate("memory of a machine in our jail, all its processes, in MB", "jail memory", "MB", le, 5.0),
)


def main() -> int:
    options = _parse()
    say = (lambda _: None) if options.json else report.say
    compile_package()
    try:
        firecrackers.programs()
        filters = write_filters()
        contenders = [make(filters) for make in CONTENDERS.values()]
        host = report.describe_host() | {"kvm": kvm_facts().kind}
        say(report.heading(host, filters, {}))
        rounds = options.n or (QUICK if options.quick else FULL)
        measured = measure(contenders, rounds=rounds, warmup=WARMUP, segments=0, segment_ms=0)
        memory = firecrackers.memory_bytes(MEMORY_SAMPLES)
    except (BuildError, FileNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    series = {**measured.series(), **UNITS, "jail memory": memory}
    series |= _more(series)
    verdicts = judge(series, GATES)
    if options.json:
        print(json.dumps(report.as_json(host, filters, {}, contenders, {}, measured, verdicts), indent=1))
    else:
        report.print_tables(contenders, measured, verdicts)
    return int(bool(measured.failed) or missed(verdicts, {*series, *CONTENDERS}))


def _more(series: Mapping[str, list[float]]) -> dict[str, list[float]]:
    pairs = {name: (series.get(ours, []), series.get(theirs, [])) for name, (ours, theirs) in MORE.items()}
    return {name: [one - other for one, other in zip(*pair, strict=True)] for name, pair in pairs.items() if all(pair)}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.firecracker", description=__doc__)
    parser.add_argument("--n", type=count, metavar="N", help=f"samples of each (default {FULL})")
    parser.add_argument("--quick", action="store_true", help="few samples: does it work, not how fast is it")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
