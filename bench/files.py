"""`python -m bench.files`: 100 MiB into a box and out of it, against `cat` through a pipe, in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.report import describe_host
from immure import Sandbox

SIZE, ROUNDS = 100 << 20, 15
#: Wanted: the speed of `cat` through a pipe, times this.
LEAST = 0.5


def main() -> int:
    # In memory, so that no disk is measured.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, Sandbox(disk_mib=1024) as box:
        source, target = Path(folder, "source"), Path(folder, "target")
        source.write_bytes(os.urandom(SIZE))
        contenders: dict[str, Callable[[], object]] = {
            "cat": lambda: subprocess.run(f"cat {source} | cat > {target}", shell=True, check=True),
            "in": lambda: box.files.upload(source, "/tmp/copy"),
            "out": lambda: box.files.download("/tmp/copy", target),
        }
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, work in contenders.items():
                target.unlink(missing_ok=True)
                began = perf_counter()
                work()
                times[name].append(perf_counter() - began)
        assert target.read_bytes() == source.read_bytes()
    speed = {name: SIZE / (1 << 20) / median(taken) for name, taken in times.items()}
    ratios = {name: round(speed[name] / speed["cat"], 2) for name in ("in", "out")}
    shown = {"host": describe_host(), "mib_per_s": {n: round(s) for n, s in speed.items()}, "ratio_to_cat": ratios}
    print(json.dumps(shown, indent=1, default=str))
    return 0 if min(ratios.values()) >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
