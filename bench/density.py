"""`python -m bench.density RUNTIME [N]`: how many boxes a second this host makes, and how many idle ones it takes.

As root. Boxes are made by two threads and stay, until there are N, or until only a quarter of the memory is left.
Then nobody wants anything for a while, which costs processor time all the same; then each has to answer, and all end.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, sleep

from bench.contender import count
from bench.gvisor import choose_runsc
from bench.machines import MEMORY_MIB, choose_kernel, image_of_busybox
from bench.memory import pss_kib
from bench.report import describe_host
from immure import Sandbox
from immure.host.tree import below

#: As many at most where nothing else is said.
MOST = {"process": 1000, "gvisor": 200, "qemu": 200, "firecracker": 50}
MAKERS, IDLE_S, SETTLING_S = 2, 5.0, 2.0
#: Of the memory, which stays free whatever is asked for.
RESERVE = 0.25
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.density", description=__doc__)
    parser.add_argument("runtime", choices=MOST)
    parser.add_argument("n", nargs="?", type=count, help="boxes at most (by default " + json.dumps(MOST) + ")")
    options = parser.parse_args()
    most = options.n or MOST[options.runtime]
    with spec_of(options.runtime) as spec:
        Sandbox(**spec).close()  # type: ignore[arg-type] - what boxes share is made with the first
        # The kernel takes its time with what it had.
        sleep(SETTLING_S)
        found = density(spec, most)
    print(json.dumps({"host": describe_host(), "runtime": options.runtime, **found}, indent=1))
    return 0 if found["answered"] == found["boxes"] else 1


@contextmanager
def spec_of(runtime: str) -> Iterator[dict[str, object]]:
    if runtime == "process":
        yield {"level": "L2"}
        return
    if runtime == "gvisor":
        choose_runsc()
        yield {"level": "L3", "runtime": runtime}
        return
    choose_kernel()
    if runtime == "firecracker":
        from bench.firecrackers import programs

        os.environ.setdefault("IMMURE_FIRECRACKER", programs()[0])
    with image_of_busybox() as image:
        yield {"runtime": runtime, "level": "L3", "image": image, "workdir": "/", "memory_mib": MEMORY_MIB}


def density(spec: dict[str, object], most: int) -> dict[str, object]:
    memory, reserve = memory_mib("MemAvailable"), RESERVE * memory_mib("MemTotal")
    with ExitStack() as stack:
        began = perf_counter()
        boxes = make(spec, most, reserve, stack)
        made_s = perf_counter() - began
        if not boxes:
            raise SystemExit(f"bench: {memory:.0f} MiB are available, and {reserve:.0f} MiB of them are not to be used")
        left = memory_mib("MemAvailable")
        each = (memory - left) / len(boxes)
        pss = pss_kib(below(os.getpid())) / 1024 / len(boxes)
        busy = cpus_busy()
        began = perf_counter()
        with ThreadPoolExecutor(8) as askers:
            answered = sum(askers.map(lambda box: box.exec(["true"]).ok, boxes))
        asked_s = perf_counter() - began
        began = perf_counter()
        stack.close()
        closed_s = perf_counter() - began
    return {
        "boxes": len(boxes),
        "stopped_by": "the number asked for" if len(boxes) == most else "memory: a quarter is left",
        "made_per_s": round(len(boxes) / made_s, 1),
        "mib_each": round(each, 2),
        "pss_mib_each": round(pss, 2),
        "cpus_busy_while_idle": round(busy, 2),
        "answered": answered,
        "commands_per_s": round(len(boxes) / asked_s, 1),
        "closed_per_s": round(len(boxes) / closed_s, 1),
        # By the dearer of the two: few small ones are lost in what else goes on in the host.
        "memory_would_take": len(boxes) + int(max(0.0, left - reserve) / max(each, pss)),
    }


def make(spec: dict[str, object], most: int, reserve: float, stack: ExitStack) -> list[Sandbox]:
    """What is made is ended with the stack, however many there are."""

    def one(_: int) -> Sandbox | None:
        if memory_mib("MemAvailable") < reserve:
            return None
        return stack.enter_context(Sandbox(**spec))  # type: ignore[arg-type]

    with ThreadPoolExecutor(MAKERS) as makers:
        return [box for box in makers.map(one, range(most)) if box is not None]


def memory_mib(of: str) -> float:
    """Of this host. proc_meminfo(5)."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{of}:"))


def cpus_busy() -> float:
    """How many processors all of it keeps busy while nobody wants anything."""
    before = _ticks()
    sleep(IDLE_S)
    after = _ticks()
    return sum(ticks - before.get(pid, 0) for pid, ticks in after.items()) / TICKS_PER_S / IDLE_S


def _ticks() -> dict[int, int]:
    found: dict[int, int] = {}
    for pid in below(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            # It is gone.
            continue
        found[pid] = int(fields[11]) + int(fields[12])
    return found


if __name__ == "__main__":
    raise SystemExit(main())
