"""Compiled policies, as text. `IMMURE_UPDATE_GOLDEN=1` writes them anew; read the diff before committing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from seccomp_cases import (
    CORPUS,
    CORPUS_PROFILES,
    argument_edges,
    corpus_profile,
    edge_calls,
    expected,
    needs_corpus,
    returned,
)

from immure.policy.seccomp import (
    ABIS,
    Architecture,
    Filter,
    Profile,
    compile_filter,
    disassemble,
    guard_profile,
    load_preset,
    numbers,
    parse_profile,
    run,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "seccomp"


def text_of(program: Filter) -> str:
    measures = f"max {program.max_steps} steps, mean {program.mean_steps:.2f}, sha256 {program.sha256}"
    return f"; {len(program.instructions)} instructions, {measures}\n{disassemble(program.instructions)}"


def check(name: str, profile: Profile) -> None:
    path, text = GOLDEN / f"{name}.txt", text_of(compile_filter(profile))
    if os.environ.get("IMMURE_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} is not what the compiler makes now"


def only_x86_64(profile: Profile) -> Profile:
    return msgspec.structs.replace(profile, arch_map=None, architectures=(Architecture.X86_64,))


def test_default() -> None:
    check("default", load_preset("default"))


def test_guard() -> None:
    check("guard", guard_profile())


@needs_corpus
def test_moby() -> None:
    check("moby", corpus_profile("moby/default.json"))


@needs_corpus
@pytest.mark.parametrize("name", CORPUS_PROFILES)
def test_foreign_profiles_compile_to_what_the_reference_says(name: str) -> None:
    profile = corpus_profile(name)
    program = compile_filter(profile)
    for call in edge_calls(profile):
        assert returned(program, call) == expected(profile, call), call


def longest(profile: Profile) -> tuple[int, int]:
    """Steps of the longest run for a call that its number decides, and for one with arguments."""
    program, edges, abi = compile_filter(profile), argument_edges(profile), ABIS["x86_64"]
    by_number, by_argument = 0, 0
    for name, nr in numbers(abi).items():
        tried = [value for values in edges.get(name, {0: [0]}).values() for value in values]
        steps = max(run(program.instructions, nr, abi.audit, 0, (value,) * 6)[1] for value in tried)
        if name in edges:
            by_argument = max(by_argument, steps)
        else:
            by_number = max(by_number, steps)
    return by_number, by_argument


@needs_corpus
def test_moby_is_small_and_short() -> None:
    profile = only_x86_64(corpus_profile("moby/default.json"))
    assert len(compile_filter(profile).instructions) <= 75
    by_number, by_argument = longest(profile)
    assert by_number <= 12
    assert by_argument <= 20


@needs_corpus
def test_moby_compiles_in_15_ms() -> None:
    """From JSON text, for the three ABIs; the best of a few, since the machine is shared."""
    text = (Path(CORPUS or "") / "moby/default.json").read_bytes()
    best = 1.0
    for _ in range(7):
        begin = time.perf_counter()
        compile_filter(parse_profile(text))
        best = min(best, time.perf_counter() - begin)
    assert best <= 0.015
