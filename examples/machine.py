"""What a box in a virtual machine costs here: `python examples/machine.py IMAGE`, a folder with a root file system."""

from __future__ import annotations

import sys
from statistics import median
from time import perf_counter

from immure import Sandbox, run

ROUNDS = 10


def main(image: str) -> None:
    spec = {"runtime": "qemu", "level": "L3", "image": image, "workdir": "/", "memory_mib": 128}
    best = {"protections": {"memory": "best_effort"}}
    cold = median(timed(lambda: run(["/bin/true"], **spec, **best)) for _ in range(ROUNDS))
    with Sandbox(**spec, **best) as box:
        evidence = box.evidence()
        ready = median(timed(lambda: box.exec(["/bin/true"])) for _ in range(ROUNDS))
        resident_mib = box.stats().resident_bytes >> 20
    print(f"boundary {evidence.boundary}, hardware {evidence.hardware}, awarded {evidence.awarded}")
    print(f"a box, to the end of true     {cold:8.1f} ms")
    print(f"true in a ready box           {ready:8.1f} ms")
    print(f"resident, of a guest of 128   {resident_mib:8} MiB")


def timed(work: object) -> float:
    began = perf_counter()
    work()  # type: ignore[operator]
    return (perf_counter() - began) * 1000


if __name__ == "__main__":
    main(sys.argv[1])
