"""A contender that is driven from Python, in a process of its own: `python -m bench.worker SUBJECT`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from time import perf_counter_ns

from bench import firecrackers, gvisor, machines, peers, restores, subjects
from bench.rivals import RIVALS

SUBJECTS = {
    "bwrap": peers.bwrap_subject,
    "python": peers.python_subject,
    "immure": subjects.fresh_subject,
    "immure-l1": subjects.bare_subject,
    "immure-exec": subjects.ready_subject,
    "immure-pool": subjects.pooled_subject,
    "immure-cli": subjects.cli_subject,
    **{rival.name: rival.subject for rival in RIVALS},
    **gvisor.SUBJECTS,
    **machines.SUBJECTS,
    **firecrackers.SUBJECTS,
    **restores.SUBJECTS,
}

Once = Callable[[], Mapping[str, int] | None]


def main() -> None:
    name, *arguments = sys.argv[1:]
    orders = {"time": time, "rate": rate}
    with SUBJECTS[name](*arguments) as once:
        for line in sys.stdin:
            order, number = line.split()
            orders[order](once, int(number))
            sys.stdout.flush()


def time(once: Once, count: int) -> None:
    for _ in range(count):
        start = perf_counter_ns()
        times_us = once()
        total = perf_counter_ns() - start
        # What a sample leaves running is not to hit somebody else's.
        if settle := getattr(once, "settle", None):
            settle()
        print(total, *(f"{phase}={us * 1000:.0f}" for phase, us in (times_us or {}).items()))


def rate(once: Once, ms: int) -> None:
    start = now = perf_counter_ns()
    count = 0
    while now - start < ms * 1_000_000:
        once()
        count += 1
        now = perf_counter_ns()
    print(count, now - start)


if __name__ == "__main__":
    main()
