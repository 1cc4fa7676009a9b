"""The same profile in fewer words: equal for every call, with all capabilities and without, and never larger."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from seccomp_cases import corpus_profile, needs_corpus, profiles

from immure.policy.capabilities import NAMES
from immure.policy.seccomp import Action, Arg, Operator, Profile, Rule, Scope, compare, minimise, parse_profile
from immure.policy.seccomp import rule_lines as lines_of


def size(profile: Profile) -> tuple[int, int]:
    return len(profile.rules), sum(len(rule.calls) for rule in profile.rules)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(profiles())
def test_equal_and_no_larger(profile: Profile) -> None:
    small = minimise(profile)
    assert compare(profile, small, arches=["x86_64", "s390x"]).relation == "equal"
    assert sum(len(rule.calls) for rule in small.rules) <= sum(len(set(rule.calls)) for rule in profile.rules)
    assert minimise(small) == small


def of(*rules: Rule) -> Profile:
    return Profile(default_action=Action.ERRNO, syscalls=rules)


def test_what_is_left_out() -> None:
    found = minimise(
        of(
            Rule(Action.ALLOW, ("write", "read", "read")),
            Rule(Action.ALLOW, ("close",), comment="files"),
            Rule(Action.ALLOW, ("read", "no_such_call")),
            Rule(Action.LOG, ("close",)),
            Rule(Action.ALLOW, ("open",), args=(Arg(0, 1, Operator.EQ),)),
        )
    )
    # LOG is stricter than ALLOW, so that nothing but it decides about close.
    assert [rule.calls for rule in found.rules] == [("read", "write"), ("close",), ("open",)]


def test_of_equally_strict_rules_the_first_goes_on_to_count() -> None:
    first, second = (Rule(Action.ERRNO, ("read",), errno_ret=number) for number in (2, 3))
    again = Rule(Action.ERRNO, ("read", "write"), errno_ret=2, args=(Arg(0, 0, Operator.EQ),))
    profile = of(Rule(Action.ERRNO, ("close",), errno_ret=2), second, first, again)
    assert compare(profile, minimise(profile), arches=["x86_64"]).relation == "equal"


def test_a_name_joins_the_first_group_that_it_may() -> None:
    """Not the last one, which a second look would have found another home for."""
    twice = (Arg(0, 0, Operator.NE), Arg(0, 0, Operator.NE))
    between = Rule(Action.KILL, ("read", "open"), args=twice)
    profile = of(Rule(Action.KILL, ("read",)), between, Rule(Action.KILL, ("read", "open", "socket", "ioctl")))
    small = minimise(profile)
    assert [rule.calls for rule in small.rules] == [("ioctl", "read", "socket"), ("open",), ("open",)]
    assert minimise(small) == small


def test_what_applies_to_some_hosts_alone_makes_nothing_void() -> None:
    admin = Rule(Action.KILL_PROCESS, ("mount",), includes=Scope(caps=("CAP_SYS_ADMIN",)))
    profile = of(admin, Rule(Action.ALLOW, ("mount", "read")))
    assert size(minimise(profile)) == (2, 3)
    for capabilities in (frozenset[str](), frozenset({"CAP_SYS_ADMIN"})):
        assert compare(profile, minimise(profile), capabilities=capabilities).relation == "equal"


@needs_corpus
@pytest.mark.parametrize("name", ["moby/default.json", "containers-common/seccomp.json", "moby/fixture-example.json"])
@pytest.mark.parametrize("kernel", [(4, 4), (6, 18)])
def test_foreign_profiles(name: str, kernel: tuple[int, int]) -> None:
    profile = corpus_profile(name)
    for capabilities in (frozenset[str](), frozenset(f"CAP_{one}" for one in NAMES)):
        found = compare(profile, minimise(profile), capabilities=capabilities, kernel=kernel)
        assert found.relation == "equal"


# Where rules stand.


def test_the_lines_of_rules() -> None:
    text = (
        '{ "defaultAction": "SCMP_ACT_ERRNO",\n "comment": "a \\" { [",\n "archMap": [],\n'
        ' "syscalls" : [\n  {"names": ["read"], "action": "SCMP_ACT_ALLOW"},\n\n'
        '  {"names": ["write"],\n   "action": "SCMP_ACT_ALLOW"} ], "flags": [] }'
    )
    assert len(parse_profile(text).rules) == 2
    assert lines_of(text.encode()) == [5, 7]
    assert lines_of(b'{"defaultAction": "SCMP_ACT_ALLOW"}') == []
    assert lines_of(b'{"syscalls": null, "defaultAction": "SCMP_ACT_ALLOW"}') == []
