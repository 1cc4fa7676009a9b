"""Our programs against libseccomp's, on random profiles of the kinds for which that library is exact."""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seccomp_cases import NAMES, calls_near

from immure.policy.seccomp import ABIS, Action, Arg, Operator, Profile, Rule, compile_filter, numbers, run
from immure.policy.seccomp.bpf import unpack
from immure.policy.seccomp.resolve import resolve

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench.libseccomp import export

X86_64 = ABIS["x86_64"]
KNOWN = tuple(name for name in NAMES if name in numbers(X86_64))
ACTIONS = (Action.ALLOW, Action.LOG, Action.TRAP, Action.KILL_PROCESS)
SMALL = st.sampled_from([0, 1, 2, 3, 0x28, 0x7E02_0000, 0xFFFF_FFFE]) | st.integers(1, 2**32 - 2)


def rule(name: str, action: Action, args: tuple[Arg, ...]) -> Rule:
    return Rule(action, (name,), args=args)


@st.composite
def exact_profiles(draw: st.DrawFn) -> Profile:
    """One rule for each call, with conditions on different arguments."""
    names = draw(st.lists(st.sampled_from(KNOWN), min_size=1, max_size=5, unique=True))
    made: list[Rule] = []
    for name in names:
        indexes = draw(st.lists(st.integers(0, 3), max_size=3, unique=True))
        args = tuple(Arg(index, draw(SMALL), draw(st.sampled_from(list(Operator))), draw(SMALL)) for index in indexes)
        made.append(rule(name, draw(st.sampled_from(ACTIONS)), args))
    return Profile(default_action=draw(st.sampled_from([Action.ERRNO, Action.ALLOW])), syscalls=tuple(made))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_the_same_answer_to_every_call_that_is_named(data: st.DataObject) -> None:
    profile = data.draw(exact_profiles())
    ours = compile_filter(profile).instructions
    named = {numbers(X86_64)[name] for one in profile.rules for name in one.calls}
    for tree in (False, True):
        theirs = unpack(export(resolve(profile, "x86_64", frozenset(), (6, 1)), tree=tree))
        for _ in range(8):
            call = data.draw(calls_near(profile, ("x86_64",)))
            # Of calls newer than the profile libseccomp knows nothing.
            if call.nr in named:
                answers = {run(one, call.nr, X86_64.audit, 0, call.args)[0] for one in (ours, theirs)}
                assert len(answers) == 1, (tree, call)
