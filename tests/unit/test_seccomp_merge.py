"""Merging: each call gets the least strict answer, or the call that can't be merged is named."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from seccomp_cases import calls_near, profiles

from immure.errors import ProfileError
from immure.policy.seccomp import Action, Architecture, Arg, Operator, Profile, Rule, compare, evaluate, merge
from immure.policy.seccomp.actions import encode, severity


def strictness(profile: Profile, call: object) -> int:
    found = evaluate(profile, call)  # type: ignore[arg-type]
    return severity(encode(found.action, found.errno))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.data())
def test_the_least_strict_answer(data: st.DataObject) -> None:
    first, second = data.draw(profiles()), data.draw(profiles())
    # Defaults must be the same, and so they mostly would not be.
    second = replace(second, default_action=first.default_action, default_errno_ret=first.default_errno_ret)
    try:
        both = merge([first, second])
    except ProfileError:
        reject()
    for profile in (first, second, both):
        call = data.draw(calls_near(profile))
        assert strictness(both, call) == max(strictness(first, call), strictness(second, call))


def of(*rules: Rule, **fields: object) -> Profile:
    return Profile(default_action=Action.ERRNO, syscalls=rules, **fields)  # type: ignore[arg-type]


READ, WRITE = Rule(Action.ALLOW, ("read",)), Rule(Action.ALLOW, ("write",))
ONE, TWO = (Rule(Action.ALLOW, ("socket",), args=(Arg(0, value, Operator.EQ),)) for value in (1, 2))
NO_SOCKET = Rule(Action.KILL_PROCESS, ("socket",))


def test_rules_of_both() -> None:
    both = merge([of(READ, ONE), of(WRITE, TWO, READ)])
    assert [rule.calls for rule in both.rules] == [("read",), ("socket",), ("write",), ("socket",)]
    assert compare(of(READ, ONE, WRITE, TWO), both).relation == "equal"


def test_what_one_refuses_and_the_other_allows_is_allowed() -> None:
    both = merge([of(READ, NO_SOCKET), of(Rule(Action.ALLOW, ("socket", "read")))])
    assert compare(of(READ, Rule(Action.ALLOW, ("socket",))), both).relation == "equal"


def test_abis_of_both() -> None:
    x86 = of(READ, architectures=(Architecture.X86_64, Architecture.X86))
    both = merge([of(READ), x86])
    assert compare(x86, both).relation == "equal"


def test_what_can_not_be_said_is_named() -> None:
    with pytest.raises(ProfileError, match="socket can't be merged") as caught:
        merge([of(READ, NO_SOCKET), of(READ, ONE)])
    assert "x86_64 socket(0: 0x0)" in str(caught.value)
    with pytest.raises(ProfileError, match="different defaults"):
        merge([of(READ), Profile(default_action=Action.ALLOW)])
