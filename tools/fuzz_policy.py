"""Feeds broken documents to the parser and compiler: `python tools/fuzz_policy.py [--n N] [--seed S] [FILE…]`.

Documents are made from seeds (the presets, and FILE…) by changes of bytes and of the structure. Each must be read or
refused with ProfileError; of those that are read, one in a hundred is compiled as well, for a random architecture, and
its program compared with the reference on some calls. Exit status: 0, 1 for anything else (the document is printed), 2
for usage.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from immure.errors import ProfileError
from immure.policy.seccomp import (
    ABIS,
    PRESETS,
    Call,
    Profile,
    Reference,
    check_profile,
    compile_filter,
    numbers,
    parse_profile,
    preset_text,
    run,
)
from immure.policy.seccomp.abi import FAMILIES
from immure.policy.seccomp.actions import encode

COMPILED_OF = 100
WORDS: list[Any] = [
    *(None, True, 0, -1, 1, 38, 4096, 2**31, 2**32, 2**63, 2**64 - 1, 2**64, 1.5, "", "read", "clone", "\0", "é"),
    *("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE", "SCMP_ARCH_X86"),
    *([], {}, [[]], {"names": ["read"], "action": "SCMP_ACT_ALLOW"}, "4.8", "CAP_SYS_ADMIN"),
]
BYTES = [b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\0", b"\xff", b"1e999", b"null", b"\\ud800", b"-", b"\n"]


def main() -> int:
    """Runs it all, and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000_000, help="documents (10000000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("files", nargs="*", metavar="FILE", help="more documents to begin with")
    options = parser.parse_args()
    seeds = [preset_text(name) for name in PRESETS] + [Path(name).read_bytes() for name in options.files]
    workers = os.cpu_count() or 1
    shares = [(f"{options.seed}/{number}", options.n // workers + 1, seeds) for number in range(workers)]
    read = 0
    with ProcessPoolExecutor(workers) as pool:
        for count, fault in pool.map(fuzz, shares):
            read += count
            if fault is not None:
                print(fault)
                return 1
    print(f"{sum(share[1] for share in shares)} documents: {read} read, the others refused; no other fault")
    return 0


def fuzz(share: tuple[str, int, list[bytes]]) -> tuple[int, str | None]:
    """How many documents were read, and the first one that did something else than being read or refused."""
    seed, count, seeds = share
    chance = random.Random(seed)
    small = [shrunk(chance, text) for text in seeds for _ in range(30)]
    read = 0
    for _ in range(count):
        text = chance.choice(MUTATIONS)(chance, chance.choice(small))
        try:
            profile = parse_profile(text)
        except ProfileError:
            continue
        except Exception as fault:
            return read, f"{fault!r} on {text!r}"
        read += 1
        if read % COMPILED_OF == 0:
            fault = compiled(chance, profile)
            if fault is not None:
                return read, f"{fault} on {text!r}"
    return read, None


def compiled(chance: random.Random, profile: Profile) -> str | None:
    """What went wrong in compiling, if anything did."""
    arch = chance.choice(list(FAMILIES))
    try:
        check_profile(profile)
        program = compile_filter(profile, arch=arch)
    except ProfileError:
        return None
    except Exception as fault:
        return repr(fault)
    reference = Reference(profile, arch=arch)
    for _ in range(20):
        number = chance.choice(list(numbers(ABIS[arch]).values()))
        call = Call(arch, number, tuple(chance.choice((0, 1, 40, 2**32, chance.getrandbits(64))) for _ in range(6)))
        decision = reference.decide(call)
        got, _ = run(program.instructions, number, ABIS[arch].audit, 0, call.args, big_endian=program.big_endian)
        if got != encode(decision.action, decision.errno):
            return f"{call}: {got:#x}"
    return None


def shrunk(chance: random.Random, text: bytes) -> bytes:
    """A few rules of a document, so that many can be tried."""
    document = json.loads(text)
    rules = document.get("syscalls")
    if isinstance(rules, list) and rules:
        document["syscalls"] = [dict(one) for one in chance.sample(rules, min(len(rules), 3))]
        for rule in document["syscalls"]:
            if isinstance(rule.get("names"), list):
                rule["names"] = rule["names"][:3]
    return json.dumps(document).encode()


def change_bytes(chance: random.Random, text: bytes) -> bytes:
    """Bytes put in, taken out or doubled, up to four times."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.choice((0, 1, 1, 8, 64)))
        middle = chance.choice((b"", chance.choice(BYTES), text[at:end] * 2, bytes([chance.getrandbits(8)])))
        text = text[:at] + middle + text[end:]
    return text


def change_structure(chance: random.Random, text: bytes) -> bytes:
    """A value, somewhere, that is another; or a key that is."""
    document = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        place: Any = document
        while isinstance(place, dict | list) and place:
            key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or chance.random() < 0.2:
                if isinstance(place, dict) and chance.random() < 0.1:
                    place[str(chance.choice(WORDS))] = place.pop(key)
                else:
                    place[key] = chance.choice(WORDS)
                break
            place = inner
    with suppress(ValueError):
        return json.dumps(document).encode()
    return text


MUTATIONS: list[Callable[[random.Random, bytes], bytes]] = [change_bytes, change_structure, change_structure]

if __name__ == "__main__":
    sys.exit(main())
