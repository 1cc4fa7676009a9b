"""What the seccomp tests share: random profiles and calls, and values at which a profile changes its mind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st

from immure.policy.seccomp import (
    ABIS,
    Action,
    Architecture,
    Arg,
    Call,
    Filter,
    Operator,
    Profile,
    Rule,
    evaluate,
    numbers,
    parse_profile,
    run,
)
from immure.policy.seccomp.actions import encode

U64 = 2**64 - 1
CORPUS = os.environ.get("IMMURE_CORPUS")
#: The profiles of the corpus in JSON.
CORPUS_PROFILES = (
    "moby/default.json",
    "moby/fixture-example.json",
    "moby/fixture-conditional_include.json",
    "moby/fixture-default-old-format.json",
    "containers-common/seccomp.json",
    "containers-common/fixture-example.json",
    "runc/seccomp_syscall_test1.json",
    "runc/seccomp_syscall_test2.json",
    "spo/security-profiles-operator.json",
    "spo/bpf-recorder.json",
)
needs_corpus = pytest.mark.skipif(CORPUS is None, reason="IMMURE_CORPUS is not set: no foreign profiles")

# Few names, so that rules meet; some that not every ABI has, that x32 numbers apart, and the newest.
NAMES = ("read", "open", "socket", "ioctl", "clone", "socketcall", "rt_sigaction", "futex_wake", "openat2")
X86_ABIS = ("x86_64", "i386", "x32")


def corpus_profile(name: str) -> Profile:
    return parse_profile((Path(CORPUS or "") / name).read_bytes(), source=name)


def edge_values(numbers_seen: set[int]) -> list[int]:
    """Numbers, their neighbours, and what they look like with one half gone."""
    halves = {half for one in numbers_seen for half in (one, one & 0xFFFF_FFFF, one >> 32 << 32, one ^ U64)}
    around = {near & U64 for one in halves for near in (one - 1, one, one + 1, one | 1 << 32)}
    return sorted(around | {0, 1, 0xFFFF_FFFF, 1 << 32, U64})


def argument_edges(*profiles: Profile) -> dict[str, dict[int, list[int]]]:
    """Per call name and argument: the values at which a rule of the profiles may change its mind."""
    seen: dict[str, dict[int, set[int]]] = {}
    for rule in (rule for profile in profiles for rule in profile.rules):
        for name in rule.calls:
            for arg in rule.args or ():
                values = seen.setdefault(name, {}).setdefault(arg.index, set())
                values |= {arg.value, arg.value_two, arg.value & arg.value_two}
    return {
        name: {index: edge_values(values) for index, values in arguments.items()} for name, arguments in seen.items()
    }


def edge_calls(*profiles: Profile, abis: tuple[str, ...] = X86_ABIS) -> Iterator[Call]:
    """Every call of the tables, with arguments at the edges of the conditions, and unknown numbers."""
    edges = argument_edges(*profiles)
    for abi in abis:
        for name, nr in numbers(ABIS[abi]).items():
            yield Call(abi, nr, (0,) * 6)
            yield Call(abi, nr, (U64,) * 6)
            for index, values in edges.get(name, {}).items():
                for value in values:
                    for rest in (0, U64):
                        yield Call(abi, nr, tuple(value if at == index else rest for at in range(6)))
    for nr in (335, 387, 423, 600, 0x3FFF_FFFF, 0x4000_0000, 0x4000_01D8, 0x7FFF_FFFF, 0xFFFF_FFFF):
        yield from (Call(abi, nr) for abi in abis)


def returned(program: Filter, call: Call) -> int:
    """What the compiled program says, by way of the interpreter."""
    value, steps = run(
        program.instructions, call.nr, ABIS[call.arch].audit, 0, call.args, big_endian=program.big_endian
    )
    assert steps <= program.max_steps
    return value


def expected(profile: Profile, call: Call, arch: str = "x86_64") -> int:
    """What the reference says, as a filter's return value."""
    decision = evaluate(profile, call, arch=arch)
    return encode(decision.action, decision.errno)


_actions = st.sampled_from(Action)
_values = st.one_of(
    st.integers(0, U64),
    st.sampled_from([0, 1, 2, 3, 0x7E02_0000, 0xFFFF_FFFF, 1 << 32, (1 << 32) + 1, 1 << 63, U64, U64 - 1]),
    st.integers(0, 16),
)
_args = st.builds(Arg, index=st.integers(0, 2), value=_values, value_two=_values, op=st.sampled_from(Operator))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    action = draw(_actions)
    numbered = action in (Action.ERRNO, Action.TRACE)
    return Rule(
        action=action,
        errno_ret=draw(st.sampled_from([None, 0, 2, 38, 5000])) if numbered else None,
        names=tuple(draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))),
        args=tuple(draw(st.lists(_args, max_size=3))),
    )


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    default = draw(_actions)
    architectures = [Architecture.X86_64, Architecture.X86, Architecture.X32, Architecture.AARCH64]
    return Profile(
        default_action=default,
        default_errno_ret=draw(st.sampled_from([None, 1, 38])) if default is Action.ERRNO else None,
        architectures=tuple(draw(st.lists(st.sampled_from(architectures), unique=True))),
        syscalls=tuple(draw(st.lists(rules(), max_size=8))),
    )


@st.composite
def calls_near(draw: st.DrawFn, profile: Profile, abis: tuple[str, ...] = X86_ABIS) -> Call:
    """A call that the profile has an opinion on, with arguments next to those that its rules compare with."""
    abi = draw(st.sampled_from(abis))
    table = numbers(ABIS[abi])
    named = [table[name] for rule in profile.rules for name in rule.calls if name in table] or [0]
    number = draw(
        st.one_of(
            st.sampled_from(named),
            st.sampled_from([*table.values(), max(named) + 1]),
            st.integers(0, 2**32 - 1),
        )
    )
    seen = {number for rule in profile.rules for arg in rule.args or () for number in (arg.value, arg.value_two)}
    value = st.one_of(st.sampled_from(edge_values(seen)), st.integers(0, U64))
    return Call(abi, number, tuple(draw(st.lists(value, min_size=3, max_size=3))))
