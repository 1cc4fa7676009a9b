"""Comparing profiles: every difference has a witness that the reference confirms, and no difference is missed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seccomp_cases import calls_near, corpus_profile, needs_corpus, profiles

from immure.policy.seccomp import (
    ABIS,
    Action,
    Architecture,
    Arg,
    Call,
    Comparison,
    Operator,
    Profile,
    Rule,
    compare,
    evaluate,
    load_preset,
    numbers,
)
from immure.policy.seccomp.actions import describe, encode

X86_64 = ABIS["x86_64"]


def answer(profile: Profile, call: Call, arch: str) -> tuple[str, int | None]:
    found = evaluate(profile, call, arch=arch)
    return describe(encode(found.action, found.errno)), found.rule


def confirm(first: Profile, second: Profile, comparison: Comparison, arch: str) -> None:
    for one in comparison.differences:
        call = Call(one.abi, one.number, one.args)
        assert answer(first, call, arch) == (one.first.answer, one.first.rule)
        assert answer(second, call, arch) == (one.second.answer, one.second.rule)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_witnesses_hold_and_nothing_is_missed(data: st.DataObject) -> None:
    first, second = data.draw(profiles()), data.draw(profiles())
    found = compare(first, second, arches=["x86_64"])
    confirm(first, second, found, "x86_64")
    told = {(one.abi, one.number, one.first.answer, one.second.answer) for one in found.differences}
    for profile in (first, second, first, second):
        call = data.draw(calls_near(profile))
        before, after = answer(first, call, "x86_64")[0], answer(second, call, "x86_64")[0]
        named = call.nr in numbers(ABIS[call.arch]).values()
        if before != after and named:
            assert (call.arch, call.nr, before, after) in told
        elif before != after:
            assert (before, after) in {(one.first.answer, one.second.answer) for one in found.differences}


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(profiles(), profiles())
def test_the_other_way_round(first: Profile, second: Profile) -> None:
    opposite = {"equal": "equal", "incomparable": "incomparable", "stricter": "looser", "looser": "stricter"}
    there, back = compare(first, second, arches=["x86_64"]), compare(second, first, arches=["x86_64"])
    assert back.relation == opposite[there.relation]
    assert compare(first, first).relation == "equal"
    assert not compare(first, first).differences


def socket_profile(*rules: Rule, default: Action = Action.ERRNO, **fields: object) -> Profile:
    return Profile(default_action=default, syscalls=(Rule(Action.ALLOW, ("read",)), *rules), **fields)  # type: ignore[arg-type]


def allow(*conditions: Arg) -> Rule:
    return Rule(Action.ALLOW, ("socket",), args=conditions)


def test_a_difference_of_one_value_in_two_to_the_64() -> None:
    first = socket_profile(allow(Arg(2, 2**63 + 12345, Operator.NE)))
    second = socket_profile(allow())
    found = compare(first, second, arches=["x86_64"])
    (one,) = found.differences
    assert found.relation == "looser"
    assert (one.call, one.args, one.count) == ("socket", (0, 0, 2**63 + 12345), 1)
    assert (one.first.answer, one.first.rule, one.second.rule) == ("ERRNO EPERM", None, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # The same sets of values in other words.
        ((Arg(0, 5, Operator.GT),), (Arg(0, 6, Operator.GE),)),
        ((Arg(0, 0, Operator.GE),), ()),
        ((Arg(0, 2**64 - 1, Operator.MASKED_EQ, 7),), (Arg(0, 7, Operator.EQ),)),
        ((Arg(0, 6, Operator.MASKED_EQ, 9),), (Arg(0, 6, Operator.MASKED_EQ, 0),)),
    ],
)
def test_equal_however_it_is_written(one: tuple[Arg, ...], other: tuple[Arg, ...]) -> None:
    assert compare(socket_profile(allow(*one)), socket_profile(allow(*other))).relation == "equal"


def test_both_ways_is_incomparable_and_so_is_another_errno_alone() -> None:
    first = socket_profile(allow(Arg(0, 1, Operator.EQ)))
    second = socket_profile(allow(Arg(0, 2, Operator.EQ)))
    found = compare(first, second, arches=["x86_64"])
    assert found.relation == "incomparable"
    assert {(one.kind, one.args) for one in found.differences} == {("stricter", (1,)), ("looser", (2,))}
    refused = Rule(Action.ERRNO, ("socket",), errno_ret=13)
    found = compare(socket_profile(), socket_profile(refused), arches=["x86_64"])
    assert found.relation == "incomparable"
    assert {one.kind for one in found.differences} == {"other"}
    stricter = compare(socket_profile(allow()), socket_profile(Rule(Action.KILL_PROCESS, ("socket",))))
    assert stricter.relation == "stricter"


def test_an_abi_that_only_one_declares() -> None:
    native = socket_profile()
    both = socket_profile(architectures=(Architecture.X86_64, Architecture.X86))
    found = compare(native, both, arches=["x86_64"])
    assert {one.abi for one in found.differences} == {"i386"}
    assert ("read", "ERRNO ENOSYS", "ALLOW") in {
        (one.call, one.first.answer, one.second.answer) for one in found.differences
    }
    assert found.relation == "looser"


def test_numbers_without_a_name_are_counted_once() -> None:
    first, second = (socket_profile(default=default) for default in (Action.ALLOW, Action.KILL_PROCESS))
    nameless = [one for one in compare(first, second, arches=["riscv64"]).differences if one.call is None]
    table = set(numbers(ABIS["riscv64"]).values())
    # By the second profile, a call that is newer than all it names is not implemented.
    assert sum(one.count for one in nameless) == 2**32 - len(table)
    assert all(one.number not in table for one in nameless)


def test_what_capabilities_and_kernels_bring() -> None:
    moby_like = Profile(
        default_action=Action.ERRNO,
        syscalls=(
            Rule(Action.ALLOW, ("read",)),
            Rule(Action.ALLOW, ("mount",), includes=scope(caps=("CAP_SYS_ADMIN",))),
            Rule(Action.ALLOW, ("ptrace",), includes=scope(min_kernel="4.8")),
        ),
    )
    plain = Profile(default_action=Action.ERRNO, syscalls=(Rule(Action.ALLOW, ("read", "ptrace")),))
    assert compare(plain, moby_like, arches=["x86_64"]).relation == "equal"
    assert compare(plain, moby_like, arches=["x86_64"], capabilities={"CAP_SYS_ADMIN"}).relation == "looser"
    assert compare(plain, moby_like, arches=["x86_64"], kernel=(4, 4)).relation == "stricter"


def scope(**fields: object) -> object:
    from immure.policy.seccomp import Scope

    return Scope(**fields)  # type: ignore[arg-type]


@needs_corpus
def test_mobys_and_podmans_defaults() -> None:
    first, second = corpus_profile("moby/default.json"), corpus_profile("containers-common/seccomp.json")
    found = compare(first, second)
    assert found.relation == "incomparable"
    for arch in ("x86_64", "s390x", "aarch64"):
        confirm(first, second, compare(first, second, arches=[arch]), arch)
    names = {(one.call, one.kind) for one in found.differences if one.abi == "x86_64"}
    assert ("unshare", "looser") in names
    assert ("clone", "looser") in names


@needs_corpus
def test_the_default_preset_is_stricter_than_mobys() -> None:
    assert compare(corpus_profile("moby/default.json"), load_preset("default")).relation == "stricter"
