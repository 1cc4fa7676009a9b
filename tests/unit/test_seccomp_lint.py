"""Each finding on a profile that has the fault, and none on the same profile without it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from seccomp_cases import corpus_profile, needs_corpus

from immure.policy.seccomp import (
    ABIS,
    PRESETS,
    Action,
    Architecture,
    Arg,
    Call,
    Finding,
    Operator,
    Profile,
    Rule,
    evaluate,
    lint_profile,
    load_preset,
    numbers,
)

ENOSYS = 38
READ = Rule(Action.ALLOW, ("read",))
CLONE = Rule(Action.ALLOW, ("clone",), args=(Arg(0, 0x7E02_0000, Operator.MASKED_EQ),))
NO_CLONE3 = Rule(Action.ERRNO, ("clone3",), errno_ret=ENOSYS)
LOW = 0xFFFF_FFFF


def allow(*names: str, args: tuple[Arg, ...] = (), **fields: object) -> Rule:
    return Rule(Action.ALLOW, names, args=args, **fields)  # type: ignore[arg-type]


def deny(*names: str, args: tuple[Arg, ...] = (), errno: int = 1) -> Rule:
    return Rule(Action.ERRNO, names, args=args, errno_ret=errno)


def of(*rules: Rule, default: Action = Action.ERRNO, **fields: object) -> Profile:
    return Profile(default_action=default, syscalls=(READ, *rules), **fields)  # type: ignore[arg-type]


X86 = {"architectures": (Architecture.X86_64, Architecture.X86)}
#: The code of the finding, where it is; a profile that has it; the same without.
FAULTS: Mapping[str, tuple[str, str, Profile, Profile]] = {
    "a refused family by its other spelling": (
        "truncated-argument",
        "$.syscalls[1]",
        of(allow("socket", args=(Arg(0, 40, Operator.NE),))),
        of(allow("socket"), deny("socket", args=(Arg(0, LOW, Operator.MASKED_EQ, 40),))),
    ),
    "a refused request of ioctl": (
        "truncated-argument",
        "$.defaultAction",
        of(deny("ioctl", args=(Arg(1, 0x5412, Operator.EQ),)), default=Action.ALLOW),
        of(deny("ioctl", args=(Arg(1, LOW, Operator.MASKED_EQ, 0x5412),)), default=Action.ALLOW),
    ),
    "clone3 beside a limited clone": (
        "clone3-open",
        "$.syscalls[2]",
        of(CLONE, allow("clone3")),
        of(CLONE, NO_CLONE3),
    ),
    "clone3 refused as programs do not expect": (
        "clone3-errno",
        "$.syscalls[2]",
        of(CLONE, deny("clone3")),
        of(CLONE, NO_CLONE3),
    ),
    "the old way to sockets": (
        "socketcall-open",
        "$.syscalls[2]",
        of(allow("socket", args=(Arg(0, LOW, Operator.MASKED_EQ, 1),)), allow("socketcall"), **X86),
        of(allow("socket", args=(Arg(0, LOW, Operator.MASKED_EQ, 1),)), **X86),
    ),
    "a ring that opens files": (
        "io-uring-open",
        "$.syscalls[1]",
        of(allow("io_uring_setup")),
        of(deny("io_uring_setup")),
    ),
    "a call that is seldom meant": ("dangerous-call", "$.syscalls[1]", of(allow("bpf")), of(deny("bpf"))),
    "the entries of 32 bits": ("abi-open", "$.architectures", of(**X86), of()),
    "a rule behind a stricter one": (
        "dead-rule",
        "$.syscalls[1]",
        of(allow("write"), deny("write", errno=2)),
        of(allow("write"), deny("write", errno=2, args=(Arg(0, 1, Operator.EQ),))),
    ),
    "conditions that exclude each other": (
        "dead-rule",
        "$.syscalls[2]",
        of(
            deny("ioctl", args=(Arg(0, 9, Operator.LE),)),
            deny("ioctl", args=(Arg(0, 3, Operator.LT),), errno=2),
            default=Action.ALLOW,
        ),
        of(
            deny("ioctl", args=(Arg(0, 2, Operator.LT),)),
            deny("ioctl", args=(Arg(0, 3, Operator.LT),), errno=2),
            default=Action.ALLOW,
        ),
    ),
}


def found(profile: Profile, code: str) -> list[Finding]:
    return [one for one in lint_profile(profile) if one.code == code]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_only_where_it_is(name: str) -> None:
    code, where, faulty, sound = FAULTS[name]
    assert where in {one.where for one in found(faulty, code)}
    assert all(one.fix for one in found(faulty, code))
    assert found(sound, code) == []


def test_the_trick_that_is_told_works() -> None:
    profile = of(allow("socket", args=(Arg(0, 40, Operator.NE),)))
    number = numbers(ABIS["x86_64"])["socket"]
    (finding,) = found(profile, "truncated-argument")
    trick = next(int(word.strip(","), 16) for word in finding.message.split() if word.startswith("0x1"))
    assert trick & LOW == 40
    assert evaluate(profile, Call("x86_64", number, (40,))).action is Action.ERRNO
    assert evaluate(profile, Call("x86_64", number, (trick,))).action is Action.ALLOW


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64", "s390x", "ppc64le"])
def test_our_presets_have_none(name: str, arch: str) -> None:
    assert lint_profile(load_preset(name), arch=arch) == ()


@needs_corpus
def test_what_is_found_in_mobys_default() -> None:
    assert {(one.code, one.where) for one in lint_profile(corpus_profile("moby/default.json"))} == {
        ("truncated-argument", "$.syscalls[4]"),
        ("socketcall-open", "$.syscalls[0]"),
        ("abi-open", "$.archMap"),
    }
