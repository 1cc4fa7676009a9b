"""The smallest profile for calls that were seen: nothing that was used is missing, nothing else is let through."""

from __future__ import annotations

import itertools
import random

import pytest

from immure.policy.seccomp import (
    ABIS,
    Call,
    Profile,
    Recorder,
    asking,
    check_profile,
    compile_filter,
    evaluate,
    guard_profile,
    learned_profile,
    load_preset,
    numbers,
    parse_profile,
    refusal,
    run,
)
from immure.policy.seccomp.actions import RETURNS, Action, decode
from immure.policy.seccomp.bpf import RET
from immure.policy.seccomp.learn import CIRCUMSTANTIAL
from immure.policy.seccomp.selectors import SELECTORS

X86_64 = ABIS["x86_64"]
NUMBERS = numbers(X86_64)
AUDIT = X86_64.audit
NOTIFY = RETURNS[Action.NOTIFY]
KERNEL = (6, 1)


def recorder(profile: Profile) -> Recorder:
    program = compile_filter(profile, arch="x86_64", kernel=KERNEL, beside=guard_profile())
    return Recorder(program.to_bytes(), arch="x86_64")


def made(profile: Profile, *calls: tuple[str, tuple[int, ...]]) -> Recorder:
    found = recorder(profile)
    for name, args in calls:
        found.judge(NUMBERS[name], AUDIT, (*args, *[0] * (6 - len(args))))
    return found


def learned(*calls: tuple[str, tuple[int, ...]], base: str = "default", max_values: int = 8) -> Profile:
    profile = load_preset(base)
    return learned_profile(made(profile, *calls), profile, max_values=max_values)


def answer(profile: Profile, name: str, *args: int) -> tuple[Action, int | None]:
    decision = evaluate(profile, Call("x86_64", NUMBERS[name], args), kernel=KERNEL)
    return decision.action, decision.errno


ALLOW = (Action.ALLOW, None)
EPERM = (Action.ERRNO, 1)
ENOSYS = (Action.ERRNO, 38)


def test_what_was_used_is_allowed_and_nothing_else() -> None:
    profile = learned(("read", (0, 1, 2)), ("openat", (3, 4, 5, 6)), ("getpid", ()))
    open_names = {name for name in NUMBERS if answer(profile, name) == ALLOW}
    assert open_names == {"read", "openat", "getpid"} | set(CIRCUMSTANTIAL) & NUMBERS.keys()


def test_values_are_named_where_they_are_few() -> None:
    profile = learned(("socket", (2, 1, 0)), ("socket", (1, 524289, 0)), ("prctl", (15, 99)))
    assert answer(profile, "socket", 2, 1, 77) == ALLOW
    assert answer(profile, "socket", 1, 524289) == ALLOW
    # Combinations, not each by itself.
    assert answer(profile, "socket", 2, 524289) == EPERM
    assert answer(profile, "prctl", 15, 3) == ALLOW
    assert answer(profile, "prctl", 38) == EPERM


def test_many_values_are_not_named() -> None:
    calls = [("ioctl", (0, request)) for request in range(9)]
    assert answer(learned(*calls), "ioctl", 0, 1000) == ALLOW
    assert answer(learned(*calls[:8]), "ioctl", 0, 1000) == EPERM
    assert answer(learned(*calls[:3], max_values=2), "ioctl", 0, 1000) == ALLOW
    assert answer(learned(*calls[:1], max_values=0), "ioctl", 0, 1000) == ALLOW


def test_more_values_than_are_kept_are_many_whatever_is_asked_for() -> None:
    calls = [("ioctl", (0, request)) for request in range(500)]
    found = made(load_preset("default"), *calls)
    (one,) = found.observed()
    assert one.many
    assert len(one.values) < 100
    assert one.count == 500
    assert answer(learned(*calls, max_values=10_000), "ioctl", 0, 1000) == ALLOW


def test_calls_without_end_are_bounded() -> None:
    """A hostile command tries every number that there is not."""
    found = recorder(load_preset("default"))
    for number in range(1000, 30_000):
        assert found.judge(number, AUDIT, (0,) * 6).value == 0x0005_0026
    assert found.crowded
    assert len(found.observed()) < 5000
    # What it answers is right all the same, and what was kept goes on to count.
    assert found.judge(NUMBERS["read"], AUDIT, (0,) * 6).allowed
    assert found.judge(1000, AUDIT, (0,) * 6).count == 2
    assert not made(load_preset("default"), ("read", ())).crowded


def test_a_refusal_that_programs_go_by_stays_the_same() -> None:
    profile = learned(("clone3", (1, 2)), ("read", ()))
    assert answer(profile, "clone3") == ENOSYS
    # What is refused by default needs no rule.
    assert not [rule for rule in learned(("mount", ()), ("read", ())).rules if "mount" in rule.calls]


def test_a_refusal_above_the_newest_name_is_not_taken_for_a_new_call() -> None:
    """Above the newest call that it names a profile answers ENOSYS, as runc has it."""
    default = load_preset("default")
    call = next(
        name
        for name, number in NUMBERS.items()
        if number > NUMBERS["rseq"] and answer(default, name) == EPERM and name not in SELECTORS
    )
    profile = learned((call, ()), ("read", ()))
    assert answer(profile, call) == EPERM


def test_a_call_that_is_allowed_with_other_arguments_gets_no_rule_that_would_refuse_it() -> None:
    profile = parse_profile(
        '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": ['
        '{"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_NE"}]},'
        '{"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,'
        ' "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}]}'
    )
    found = made(profile, ("socket", (2, 1)), ("socket", (40, 1)))
    assert answer(learned_profile(found, profile), "socket", 2, 1) == ALLOW


def test_a_profile_that_is_open_by_default_teaches_one_that_is_not() -> None:
    profile = parse_profile('{"defaultAction": "SCMP_ACT_ALLOW"}')
    found = learned_profile(made(profile, ("read", ())), profile)
    assert found.default_action is Action.ERRNO
    assert answer(found, "mount") == EPERM


def test_the_default_of_the_profile_that_it_ran_under_stays() -> None:
    profile = parse_profile(
        '{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}'
    )
    assert learned_profile(made(profile, ("read", ())), profile).default_action is Action.KILL_PROCESS


@pytest.mark.parametrize(("call", "args"), [("seccomp", (1, 8)), ("prctl", (22, 2))])
def test_a_filter_of_the_commands_own_hides_calls(call: str, args: tuple[int, ...]) -> None:
    open_profile = parse_profile('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert made(open_profile, (call, args)).hidden
    # The kernel takes the first argument as 32 bits, whatever is above them.
    assert made(open_profile, (call, (args[0] | 1 << 40, *args[1:]))).hidden
    assert not made(open_profile, ("prctl", (15,)), ("seccomp", (2, 0))).hidden


def test_the_recorder_answers_as_the_filter_does() -> None:
    profile = load_preset("default")
    program = compile_filter(profile, arch="x86_64", kernel=KERNEL, beside=guard_profile())
    found = recorder(profile)
    dice = random.Random(4)
    edges = (0, 1, 2, 40, 0o4000, 0o2000, 0x10000000, 2**32, 2**64 - 1)
    for number, audit in itertools.product([*range(470), 2**30 + 1, 2**32 - 1], (AUDIT, ABIS["i386"].audit)):
        args = tuple(dice.choice(edges) for _ in range(6))
        assert found.judge(number, audit, args).value == run(program.instructions, number, audit, 0, args)[0]


def test_calls_without_a_name_are_observed_and_not_learned() -> None:
    profile = parse_profile('{"defaultAction": "SCMP_ACT_ALLOW"}')
    found = recorder(profile)
    found.judge(0x0FFF_FFFF, AUDIT, (0,) * 6)
    assert [one.name for one in found.observed()] == [str(0x0FFF_FFFF)]
    assert [rule.calls for rule in learned_profile(found, profile).rules] == [
        tuple(sorted(name for name in CIRCUMSTANTIAL if name in NUMBERS))
    ]


def test_a_foreign_architecture_is_no_call_of_ours() -> None:
    with pytest.raises(ValueError, match="0x1234"):
        recorder(load_preset("default")).judge(3, 0x1234, (0,) * 6)


def test_learned_profiles_have_no_findings_and_are_stable() -> None:
    calls = [("read", ()), ("socket", (2, 1)), ("ioctl", (0, 21505)), ("clone", (0x1200011,)), ("clone3", ())]
    profile = learned(*calls)
    assert not check_profile(profile)
    assert profile == learned(*reversed(calls))


def test_what_asks_keeps_what_a_supervisor_can_not_answer() -> None:
    profile = parse_profile(
        '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": ['
        '{"names": ["read"], "action": "SCMP_ACT_ALLOW"}, {"names": ["write"], "action": "SCMP_ACT_LOG"},'
        '{"names": ["mount"], "action": "SCMP_ACT_KILL_PROCESS"}, {"names": ["reboot"], "action": "SCMP_ACT_TRAP"},'
        '{"names": ["getpid"], "action": "SCMP_ACT_TRACE"}]}'
    )
    program = compile_filter(profile, arch="x86_64", kernel=KERNEL)
    asks = asking(program.instructions)
    assert len(asks) == len(program.instructions)
    for name in ("read", "write", "mount", "reboot", "getpid", "close"):
        before = run(program.instructions, NUMBERS[name], AUDIT)[0]
        after = run(asks, NUMBERS[name], AUDIT)[0]
        kept = decode(before)[0] in (Action.KILL_PROCESS, Action.TRAP, Action.TRACE)
        assert after == (before if kept else NOTIFY), name
    assert not any(one.code == RET and decode(one.k)[0] in (Action.ALLOW, Action.ERRNO) for one in asks)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0x7FFF0000, None), (0x7FFC0000, None), (0x00050001, 1), (0x00050026, 38), (0x00050000, 0), (0x0005FFFF, 4095)],
)
def test_an_answer_is_an_errno_or_none(value: int, expected: int | None) -> None:
    assert refusal(value) == expected


def test_selectors_are_names_of_calls_and_never_pointers() -> None:
    known = {name for abi in ABIS.values() for name in numbers(abi)}
    assert set(SELECTORS) <= known
    assert all(0 <= index <= 5 for indices in SELECTORS.values() for index in indices)
