"""Answers to calls of which some arguments are unknown: all that the reference gives, and no other."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seccomp_cases import calls_near, expected, profiles

from immure.policy.seccomp import Action, Call, Profile, Rule, evaluate, outcomes_of
from immure.policy.seccomp.actions import ENOSYS


def test_a_default_of_enosys_is_the_default_for_newer_calls_too() -> None:
    rule = Rule(action=Action.KILL, names=("read",))
    profile = Profile(default_action=Action.ERRNO, default_errno_ret=ENOSYS, syscalls=(rule,))
    (one,) = outcomes_of(profile, "x86_64", 156, {})
    assert one.reason == evaluate(profile, Call("x86_64", 156, (0,) * 6)).reason == "default"


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_every_answer_has_its_witness_and_none_is_missed(data: st.DataObject) -> None:
    profile = data.draw(profiles())
    call = data.draw(calls_near(profile))
    known = {index: call.args[index] for index in data.draw(st.sets(st.integers(0, len(call.args) - 1)))}
    found = outcomes_of(profile, call.arch, call.nr, known)
    assert expected(profile, call) in {one.value for one in found}
    for one in found:
        args = tuple(one.args.get(index, 0) for index in range(6))
        assert all(args[index] == value for index, value in known.items())
        witness = Call(call.arch, call.nr, args)
        decision = evaluate(profile, witness)
        assert (expected(profile, witness), decision.rule, decision.reason) == (one.value, one.rule, one.reason)
