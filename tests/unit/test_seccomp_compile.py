"""Semantics, case by case: each is asked of the reference and of the compiled program."""

from __future__ import annotations

import msgspec
import pytest
from seccomp_cases import U64, expected, returned

from immure.errors import ProfileError
from immure.policy.seccomp import (
    Action,
    Architecture,
    ArchMap,
    Arg,
    Call,
    Operator,
    Profile,
    Rule,
    Scope,
    compile_filter,
    evaluate,
)
from immure.policy.seccomp.actions import describe

READ, SOCKET, NEWEST = 0, 41, 471
EPERM = "ERRNO EPERM"
ENOSYS = "ERRNO ENOSYS"


def allow(*names: str, args: tuple[Arg, ...] = (), **keys: object) -> Rule:
    return Rule(action=Action.ALLOW, names=names, args=args, **keys)  # type: ignore[arg-type]


def deny(*names: str, errno: int = 1, args: tuple[Arg, ...] = ()) -> Rule:
    return Rule(action=Action.ERRNO, errno_ret=errno, names=names, args=args)


def arg(op: Operator, value: int, value_two: int = 0, index: int = 0) -> Arg:
    return Arg(index=index, op=op, value=value, value_two=value_two)


def profile(*rules: Rule, default: Action = Action.ERRNO, **keys: object) -> Profile:
    return Profile(default_action=default, syscalls=rules, **keys)  # type: ignore[arg-type]


def outcome(asked: Profile, nr: int, *args: int, arch: str = "x86_64") -> str:
    call = Call(arch, nr, args)
    value = returned(compile_filter(asked), call)
    assert value == expected(asked, call)
    return describe(value)


@pytest.mark.parametrize("value", [0, 1, 0xFFFF_FFFF, 1 << 32, 0x1234_5678_9ABC_DEF0, 1 << 63, U64])
@pytest.mark.parametrize("op", Operator)
def test_operators_are_exact_on_64_bits(op: Operator, value: int) -> None:
    asked = profile(allow("socket", args=(arg(op, value, value & 0xFF00_00FF_0000_00FF),)))
    for near in (0, value - 1, value, value + 1, value ^ 1 << 32, value ^ 1 << 63, value & 0xFFFF_FFFF, U64):
        outcome(asked, SOCKET, near & U64)


def test_conditions_of_a_rule_are_all_needed() -> None:
    asked = profile(
        allow("socket", args=(arg(Operator.EQ, 2), arg(Operator.EQ, 1, index=1), arg(Operator.LT, 7, index=2)))
    )
    assert outcome(asked, SOCKET, 2, 1, 6) == "ALLOW"
    assert {outcome(asked, SOCKET, *args) for args in ((3, 1, 6), (2, 2, 6), (2, 1, 7))} == {EPERM}


def test_conditions_on_one_argument_are_alternatives_and_so_are_all_others() -> None:
    asked = profile(allow("socket", args=(arg(Operator.EQ, 2), arg(Operator.EQ, 10), arg(Operator.EQ, 9, index=1))))
    assert outcome(asked, SOCKET, 2) == outcome(asked, SOCKET, 10) == outcome(asked, SOCKET, 99, 9) == "ALLOW"
    assert outcome(asked, SOCKET, 3, 8) == EPERM


def test_a_mask_covers_the_datum_too() -> None:
    asked = profile(allow("socket", args=(arg(Operator.MASKED_EQ, 0xF0, 0x1F2),)))
    assert outcome(asked, SOCKET, 0xF5) == "ALLOW"
    assert outcome(asked, SOCKET, 0x02) == EPERM


def test_the_most_restrictive_of_matching_rules_wins_then_the_first() -> None:
    small = (arg(Operator.LT, 10),)
    asked = profile(allow("socket"), deny("socket", errno=5, args=small), deny("socket", errno=6, args=small))
    assert outcome(asked, SOCKET, 9) == "ERRNO EIO"
    assert outcome(asked, SOCKET, 10) == "ALLOW"


@pytest.mark.parametrize(
    ("winner", "loser"),
    [
        (Action.KILL_PROCESS, Action.KILL_THREAD),
        (Action.KILL, Action.TRAP),
        (Action.TRAP, Action.ERRNO),
        (Action.ERRNO, Action.TRACE),
        (Action.TRACE, Action.LOG),
        (Action.LOG, Action.ALLOW),
    ],
)
def test_precedence_is_the_kernels(winner: Action, loser: Action) -> None:
    rules = (Rule(action=loser, names=("read",)), Rule(action=winner, names=("read",)))
    found = outcome(profile(*rules, default=Action.ALLOW), READ)
    assert found.split()[0] == winner.name.replace("KILL", "KILL_THREAD").replace("_THREAD_", "_")


def test_a_matching_rule_beats_a_harsher_default_and_none_that_matches_leaves_it() -> None:
    asked = profile(allow("socket", args=(arg(Operator.EQ, 1),)), default=Action.KILL_PROCESS)
    assert outcome(asked, SOCKET, 1) == "ALLOW"
    assert outcome(asked, SOCKET, 2) == "KILL_PROCESS"


def test_a_call_above_the_newest_named_one_is_not_implemented() -> None:
    asked = profile(allow("read", "openat"))
    assert outcome(asked, 256) == EPERM
    assert outcome(asked, 258) == ENOSYS


@pytest.mark.parametrize("default", [Action.KILL, Action.KILL_PROCESS, Action.TRAP])
def test_newer_calls_under_a_harsh_default_are_not_implemented(default: Action) -> None:
    assert outcome(profile(allow("read", "openat"), default=default), NEWEST) == ENOSYS


@pytest.mark.parametrize("default", [Action.ALLOW, Action.LOG, Action.TRACE])
def test_newer_calls_under_a_permissive_default_reach_the_kernel(default: Action) -> None:
    assert outcome(profile(deny("read", "openat"), default=default), NEWEST).split()[0] == default.name


def test_without_named_calls_there_is_no_newer_one() -> None:
    assert outcome(profile(allow("read")), NEWEST) == EPERM
    assert outcome(profile(), NEWEST) == EPERM


@pytest.mark.parametrize("default", [Action.ALLOW, Action.KILL_PROCESS, Action.ERRNO])
def test_foreign_abis_are_not_implemented_and_never_killed(default: Action) -> None:
    asked = profile(allow("read"), default=default)
    assert outcome(asked, 3, arch="i386") == ENOSYS
    assert outcome(asked, 0x4000_0000, arch="x32") == ENOSYS
    assert outcome(asked, 0x4000_0000, arch="x86_64") == ENOSYS
    assert outcome(asked, 63, arch="aarch64") == ENOSYS


def test_each_abi_has_its_own_numbers() -> None:
    asked = profile(allow("rt_sigaction"), architectures=(Architecture.X86_64, Architecture.X86, Architecture.X32))
    numbers = {"x86_64": 13, "i386": 174, "x32": 0x4000_0200}
    for arch, number in numbers.items():
        assert outcome(asked, number, arch=arch) == "ALLOW"
        assert outcome(asked, number - 1, arch=arch) == EPERM
        assert outcome(asked, number + 1, arch=arch) == ENOSYS


def test_of_the_arch_map_the_native_entry_counts() -> None:
    asked = profile(
        allow("read"),
        arch_map=(
            ArchMap(Architecture.AARCH64, (Architecture.X32,)),
            ArchMap(Architecture.X86_64, (Architecture.X86,)),
        ),
    )
    assert outcome(asked, 3, arch="i386") == "ALLOW"
    assert outcome(asked, 0x4000_0000, arch="x32") == ENOSYS


def test_unknown_calls_are_skipped_and_those_of_other_abis_too() -> None:
    asked = profile(allow("no_such_call", "socketcall", "read"))
    assert outcome(asked, READ) == "ALLOW"
    assert outcome(asked, 102) == EPERM


SCOPES = {
    "capability held": (Scope(caps=("CAP_BPF",)), None, True),
    "one of two capabilities": (Scope(caps=("CAP_BPF", "CAP_SYS_ADMIN")), None, False),
    "architecture": (Scope(arches=("arm64", "amd64")), None, True),
    "other architecture": (Scope(arches=("arm64", "x32")), None, False),
    "older kernel will do": (Scope(min_kernel="6.0"), None, True),
    "exactly this kernel": (Scope(min_kernel="6.1"), None, True),
    "kernel compared by number": (Scope(min_kernel="6.10"), None, False),
    "empty scope": (Scope(), Scope(), True),
    "excluded by capability": (None, Scope(caps=("CAP_SYS_ADMIN", "CAP_BPF")), False),
    "not excluded": (None, Scope(caps=("CAP_SYS_ADMIN",), arches=("arm64",), min_kernel="6.2"), True),
    "excluded by kernel": (None, Scope(min_kernel="4.8"), False),
    "excluded by architecture": (None, Scope(arches=("amd64",)), False),
}


@pytest.mark.parametrize(("includes", "excludes", "applies"), SCOPES.values(), ids=SCOPES)
def test_scopes(includes: Scope | None, excludes: Scope | None, applies: bool) -> None:
    asked = profile(allow("read", includes=includes, excludes=excludes))
    held = frozenset({"CAP_BPF"})
    program = compile_filter(asked, capabilities=held, kernel=(6, 1))
    decision = evaluate(asked, Call("x86_64", READ), capabilities=held, kernel=(6, 1))
    assert describe(returned(program, Call("x86_64", READ))) == ("ALLOW" if applies else EPERM)
    assert decision.rule == (0 if applies else None)


def test_numbers_of_errno_and_trace() -> None:
    assert outcome(profile(default=Action.ERRNO), READ) == EPERM
    assert outcome(profile(default=Action.ERRNO, default_errno_ret=0), READ) == "ERRNO 0"
    assert outcome(profile(default=Action.ERRNO, default_errno_ret=12345), READ) == "ERRNO 4095"
    assert outcome(profile(default=Action.TRACE, default_errno_ret=12345), READ) == "TRACE 12345"


def test_an_unconditional_rule_never_looks_at_arguments() -> None:
    rules = [deny("socket"), allow("socket", args=(arg(Operator.EQ, 1),))]
    program = compile_filter(profile(*rules, default=Action.ALLOW))
    assert not any(one.code == 0x20 and one.k >= 8 for one in program.instructions)


def test_a_mask_of_low_bits_never_looks_at_the_high_word() -> None:
    program = compile_filter(
        profile(deny("socket", args=(arg(Operator.MASKED_EQ, 0xFFFF_FFFF, 40),)), default=Action.ALLOW)
    )
    assert {one.k for one in program.instructions if one.code == 0x20} == {0, 4, 16}


def test_words_of_a_big_endian_architecture() -> None:
    asked = profile(allow("read", args=(arg(Operator.GT, 5 << 32 | 7),)))
    program = compile_filter(asked, arch="s390x")
    for value in (0, 7, 8, 5 << 32 | 7, 5 << 32 | 8, 6 << 32):
        call = Call("s390x", 3, (value,))
        assert returned(program, call) == expected(asked, call, arch="s390x")
    assert program.to_bytes()[:8] == bytes.fromhex("0020000000000004")


def test_a_program_that_asks_says_so_in_its_flags() -> None:
    asks = profile(allow("read"), Rule(action=Action.NOTIFY, names=("mount",)))
    program = compile_filter(asks)
    assert program.flags == 8
    assert returned(program, Call("x86_64", 165)) == 0x7FC0_0000
    assert compile_filter(profile(allow("read"))).flags == 0
    # i386 alone has the call.
    assert compile_filter(profile(Rule(action=Action.NOTIFY, names=("socketcall",)))).flags == 0


@pytest.mark.parametrize("arch", ["x32", "sparc"])
def test_only_native_architectures_are_compiled_for(arch: str) -> None:
    with pytest.raises(ProfileError, match="architecture"):
        compile_filter(profile(), arch=arch)


def many(count: int, op: Operator = Operator.EQ) -> Rule:
    step = 0x1_0000_0001
    return allow("ioctl", args=tuple(arg(op, step * 2 * one, 1, index=1) for one in range(1, count + 1)))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(many(1000), id="a list of values"),
        pytest.param(many(400, Operator.MASKED_EQ), id="a list of masks"),
        pytest.param(many(300, Operator.GT), id="a list of bounds"),
    ],
)
def test_long_lists_of_alternatives_compile_quickly_and_exactly(rule: Rule) -> None:
    asked = profile(rule)
    program = compile_filter(asked)
    args = rule.args or ()
    for value in (near & U64 for one in args[::37] for near in (one.value - 1, one.value, one.value + 1)):
        call = Call("x86_64", 16, (0, value))
        assert returned(program, call) == expected(asked, call)


def test_long_jumps() -> None:
    pairs = [allow("socket", args=(arg(Operator.EQ, one), arg(Operator.GT, one << 33, index=1))) for one in range(200)]
    asked = profile(*pairs, deny("read", args=(arg(Operator.NE, 5),)), allow("read", "write", "getpid"))
    assert len(compile_filter(asked).instructions) > 600
    for one in (0, 1, 100, 199, 200):
        for other in (0, one << 33, (one << 33) + 1):
            outcome(asked, SOCKET, one, other)
    assert outcome(asked, READ, 5) == outcome(asked, 1) == outcome(asked, 39) == "ALLOW"


def test_wide_products_fall_back_to_one_clause_after_the_other() -> None:
    boxes = [
        allow(
            "socket",
            args=tuple(arg(Operator.GE, (one * 37 + index * 11) % 97, index=index) for index in range(4)),
        )
        for one in range(12)
    ]
    asked = profile(*boxes)
    assert len(compile_filter(asked).instructions) < 400
    for one in range(0, 97, 7):
        outcome(asked, SOCKET, one, 97 - one, one, 50)


def test_a_filter_that_the_kernel_would_not_take_names_its_largest_rule() -> None:
    with pytest.raises(ProfileError, match=r"\$\.syscalls\[1\].*ioctl.*4096") as caught:
        compile_filter(profile(allow("read"), many(5000)))
    assert caught.value.hint


def test_measures() -> None:
    program = compile_filter(profile(allow("read")))
    # ld arch; jeq x86_64, 0, 5
    assert program.to_bytes()[:16] == bytes.fromhex("2000000004000000" + "15000005" + "3e0000c0")
    assert program.sha256 == msgspec.structs.replace(program).sha256
    assert 3 <= program.mean_steps < program.max_steps == 6
    assert len(program.to_bytes()) == 8 * len(program.instructions)
