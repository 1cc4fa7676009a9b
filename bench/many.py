"""`python -m bench.many [N]`: many ready boxes at once: how fast they are made, what each costs, that all answer."""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from bench.memory import pss_kib
from bench.report import describe_host
from immure import Sandbox
from immure.host.tree import below

COUNT = 1000
#: Wanted: PSS of a box, and boxes made in a second.
MOST_PSS_MIB, LEAST_PER_S = 1.5, 300.0


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    Sandbox().close()
    before = pss_kib(below(os.getpid()))
    began = perf_counter()
    with ThreadPoolExecutor(2) as makers:
        boxes = list(makers.map(lambda _: Sandbox(), range(count)))
    made_s = perf_counter() - began
    try:
        pss_mib = (pss_kib(below(os.getpid())) - before) / 1024 / count
        began = perf_counter()
        with ThreadPoolExecutor(8) as askers:
            answers = list(askers.map(lambda box: box.exec(["echo", box.id]).stdout.strip() == box.id.encode(), boxes))
        asked_s = perf_counter() - began
    finally:
        began = perf_counter()
        for box in boxes:
            box.close()
        closed_s = perf_counter() - began
    found = {
        "host": describe_host(),
        "boxes": count,
        "answered": sum(answers),
        "made_per_s": round(count / made_s, 1),
        "pss_mib_each": round(pss_mib, 3),
        "commands_per_s": round(count / asked_s, 1),
        "closed_per_s": round(count / closed_s, 1),
    }
    print(json.dumps(found, indent=1, default=str))
    met = all(answers) and pss_mib <= MOST_PSS_MIB and count / made_s >= LEAST_PER_S
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
