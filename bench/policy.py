"""`python -m bench.policy [PROFILE [OTHER]]`: what compiling, comparing and running filters costs, beside libseccomp.

PROFILE is an OCI profile such as Docker's default, OTHER what it is compared with; both are our preset `default` where
they are left out. The bounds are for Docker's default. Exit status: 0, 1 a bound missed, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import msgspec

from bench.build import BUILD, build
from bench.libseccomp import export
from immure.policy.seccomp import (
    ABIS,
    Filter,
    Instruction,
    Profile,
    compare,
    compile_filter,
    constant_allow,
    load_preset,
    numbers,
    parse_profile,
    preset_text,
    run,
)
from immure.policy.seccomp.bpf import unpack
from immure.policy.seccomp.resolve import resolve

ARCH = "x86_64"
KERNEL = (6, 1)
CALLS = 2_000_000
TIMES = 15


def main() -> int:
    options = _parse()
    text = options.profile.read_bytes() if options.profile else preset_text("default")
    profile = parse_profile(text, source=str(options.profile))
    # libseccomp is given the native rules alone, so ours is measured on them too.
    native = msgspec.structs.replace(profile, arch_map=None, architectures=None)
    other = parse_profile(options.other.read_bytes()) if options.other else load_preset("default")
    rows: list[tuple[str, float, str, float | None]] = []
    ours = compile_filter(native, arch=ARCH, kernel=KERNEL)
    rows += _sizes("immure", ours, native, bounds=(110, 14, 24))
    for name, tree in (("libseccomp", False), ("libseccomp, as a tree", True)):
        program = export(resolve(native, ARCH, frozenset(), KERNEL), tree=tree)
        rows += _sizes(name, Filter(unpack(program), ARCH), native, bounds=(None, None, None))
    rows.append(
        ("compile, JSON text to program", _ms(lambda: compile_filter(parse_profile(text), kernel=KERNEL)), "ms", 15)
    )
    rows.append(("compare with the other, all architectures", _ms(lambda: compare(profile, other)), "ms", 500))
    rows += _overheads(compile_filter(load_preset("default"), arch=ARCH))
    if options.json:
        names = ("what", "value", "unit", "bound")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], indent=1))
    else:
        for what, value, unit, bound in rows:
            print(f"{what:58} {value:9.1f} {unit:12} {f'≤ {bound:g}' if bound is not None else ''}")
    return int(any(bound is not None and value > bound for _, value, _, bound in rows))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument("profile", type=Path, nargs="?", metavar="PROFILE")
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    return parser.parse_args()


def _sizes(
    name: str, program: Filter, profile: Profile, *, bounds: tuple[float | None, float | None, float | None]
) -> list[tuple[str, float, str, float | None]]:
    judged = {call for rule in profile.rules if rule.args for call in rule.calls}
    by_number, by_argument = _steps(program.instructions, judged)
    audit = ABIS[ARCH].audit
    cached = sum(constant_allow(program.instructions, number, audit) for number in numbers(ABIS[ARCH]).values())
    return [
        (f"{name}: program", len(program.instructions), "instructions", bounds[0]),
        (f"{name}: longest way of a call decided by its number", by_number, "steps", bounds[1]),
        (f"{name}: longest way of any path", program.max_steps if by_argument else 0, "steps", bounds[2]),
        (f"{name}: mean way over all paths", program.mean_steps, "steps", None),
        (f"{name}: calls that the kernel lets through without it", cached, "calls", None),
    ]


def _steps(instructions: tuple[Instruction, ...], judged: set[str]) -> tuple[int, int]:
    """The most steps of a call that is decided by its number, and of one whose arguments count."""
    most = [0, 0]
    for name, number in numbers(ABIS[ARCH]).items():
        _, steps = run(instructions, number, ABIS[ARCH].audit, 0, (0,) * 6)
        most[name in judged] = max(most[name in judged], steps)
    return most[0], most[1]


def _ms(work: Callable[[], object]) -> float:
    """The median of some runs, after one to warm up."""
    work()
    times: list[float] = []
    for _ in range(TIMES):
        begin = perf_counter()
        work()
        times.append(perf_counter() - begin)
    return statistics.median(times) * 1e3


def _overheads(program: Filter) -> list[tuple[str, float, str, float | None]]:
    """Nanoseconds per call under our default filter, beside none."""
    BUILD.mkdir(exist_ok=True)
    path = BUILD / f"policy-{program.sha256[:16]}.bpf"
    path.write_bytes(program.to_bytes())
    table = numbers(ABIS[ARCH])
    calls = {
        "getppid, allowed and cached": (table["getppid"], ()),
        "personality, allowed with its argument": (table["personality"], (0xFFFF_FFFF,)),
    }
    rows: list[tuple[str, float, str, float | None]] = []
    for what, (number, args) in calls.items():
        for name, file in (("no filter", "-"), ("default filter", str(path))):
            rows.append((f"{what}: {name}", _per_call(file, number, args), "ns", None))
    return rows


def _per_call(file: str, number: int, args: tuple[int, ...]) -> float:
    words = [str(build("per_call")), file, str(number), str(CALLS), *map(str, args)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return min(map(int, done.stdout.split())) / CALLS


if __name__ == "__main__":
    sys.exit(main())
