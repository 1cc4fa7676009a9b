"""Compares compiled programs with the reference, call by call: `python tools/check_agreement.py [--n N] PROFILE…`.

For each profile and native architecture, N calls: every call of the tables at the edges of the profile's conditions,
then random ones. Exit status: 0 where all agree, 1 where one does not (it is printed), 2 for usage.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, islice
from pathlib import Path

from immure.policy.seccomp import (
    ABIS,
    PRESETS,
    Call,
    Profile,
    Reference,
    compile_filter,
    load_preset,
    numbers,
    parse_profile,
    run,
)
from immure.policy.seccomp.abi import FAMILIES, family
from immure.policy.seccomp.actions import encode

U64 = 2**64 - 1


def main() -> int:
    """Runs it all, and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000_000, help="calls for each profile (1000000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("profiles", nargs="+", metavar="PROFILE", help="a file, or the name of a preset")
    options = parser.parse_args()
    shares = [
        (name, arch, options.n // len(FAMILIES) + 1, options.seed) for name in options.profiles for arch in FAMILIES
    ]
    wrong = 0
    with ProcessPoolExecutor() as pool:
        for (name, arch, count, _), mismatch in zip(shares, pool.map(agree, shares), strict=True):
            wrong += mismatch is not None
            print(f"{name} {arch}: {f'mismatch: {mismatch}' if mismatch else f'{count} calls agree'}", flush=True)
    return int(wrong > 0)


def agree(share: tuple[str, str, int, int]) -> str | None:
    """The first call on which the program says other than the reference; None where they agree."""
    name, arch, count, seed = share
    profile = read(name)
    program = compile_filter(profile, arch=arch)
    reference = Reference(profile, arch=arch)
    chance = random.Random(f"{seed} {name} {arch}")
    for call in islice(chain(edge_calls(profile, arch), random_calls(profile, arch, chance)), count):
        decision = reference.decide(call)
        wanted = encode(decision.action, decision.errno)
        audit = ABIS[call.arch].audit
        got, _ = run(program.instructions, call.nr, audit, 0, call.args, big_endian=program.big_endian)
        if got != wanted:
            return f"{call}: program {got:#x}, reference {wanted:#x}"
    return None


def read(name: str) -> Profile:
    """The preset or file of this name."""
    return load_preset(name) if name in PRESETS else parse_profile(Path(name).read_bytes(), source=name)


def edges(profile: Profile) -> dict[str, list[tuple[int, int]]]:
    """For each call, arguments at which a rule may change its mind: (position, value)."""
    found: dict[str, dict[tuple[int, int], None]] = {}
    for rule in profile.rules:
        for arg in rule.args or ():
            seen = {arg.value, arg.value_two, arg.value & arg.value_two, arg.value | arg.value_two}
            near = {value + step for value in seen for step in (-1, 0, 1)}
            wide = {other & U64 for value in near for other in (value, value | 1 << 32, value ^ U64, value << 32)}
            for name in rule.calls:
                found.setdefault(name, {}).update(((arg.index, value), None) for value in sorted(wide))
    return {name: list(values) for name, values in found.items()}


def edge_calls(profile: Profile, arch: str) -> Iterator[Call]:
    """Every call of the tables, with arguments at the edges of the conditions and far from them."""
    known = edges(profile)
    for abi in family(arch):
        for name, number in numbers(abi).items():
            for rest in (0, U64, 0x1_0000_0001):
                yield Call(abi.name, number, (rest,) * 6)
                for position, value in known.get(name, ()):
                    yield Call(abi.name, number, tuple(value if at == position else rest for at in range(6)))


def random_calls(profile: Profile, arch: str, chance: random.Random) -> Iterator[Call]:
    """Calls without end, more often than not near a condition."""
    known = edges(profile)
    judged = [(abi.name, number, known.get(name)) for abi in family(arch) for name, number in numbers(abi).items()]
    while True:
        abi, number, values = chance.choice(judged)
        if chance.random() < 0.1:
            number = chance.choice((chance.getrandbits(10), chance.getrandbits(32)))
        args = [
            chance.choice((0, 1, chance.getrandbits(6), chance.getrandbits(32), chance.getrandbits(64)))
            for _ in range(6)
        ]
        for position, value in chance.sample(values, min(len(values), 3)) if values else ():
            args[position] = value ^ (1 << chance.randrange(64) if chance.random() < 0.3 else 0)
        yield Call(abi, number, tuple(args))


if __name__ == "__main__":
    sys.exit(main())
