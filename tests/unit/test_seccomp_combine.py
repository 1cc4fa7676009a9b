"""A profile and the guard in one program answer every call as the kernel does that runs both."""

from __future__ import annotations

import random

import pytest

from immure.policy.seccomp import (
    ABIS,
    Action,
    Arg,
    Operator,
    Profile,
    Rule,
    compile_filter,
    guard_profile,
    load_preset,
    numbers,
    outcomes,
    run,
)
from immure.policy.seccomp.actions import ALLOW, severity

GUARDED = ("chmod", "fchmod", "fchmodat", "creat", "mknod", "mknodat", "open", "openat", "fchmodat2", "openat2", "read")


def rule(action: Action, *names: str, args: tuple[Arg, ...] = (), errno: int | None = None) -> Rule:
    return Rule(action=action, names=names, args=args or None, errno_ret=errno)


CREATES = (Arg(index=2, op=Operator.MASKED_EQ, value=0o100, value_two=0o100),)
PROFILES = {
    "default": load_preset("default"),
    "allow": Profile(default_action=Action.ALLOW, syscalls=(rule(Action.ERRNO, "openat", args=CREATES, errno=13),)),
    "kill": Profile(
        default_action=Action.KILL_PROCESS,
        syscalls=(rule(Action.ALLOW, *GUARDED), rule(Action.KILL_THREAD, "openat", args=CREATES)),
    ),
    "errno": Profile(
        default_action=Action.ERRNO,
        default_errno_ret=13,
        syscalls=(rule(Action.ALLOW, "openat", args=CREATES), rule(Action.LOG, "chmod", "fchmodat2")),
    ),
    "trap": Profile(default_action=Action.TRAP, syscalls=(rule(Action.ALLOW, "mknodat", "openat"),)),
}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "s390x"])
@pytest.mark.parametrize("name", PROFILES)
def test_one_program_is_as_strict_as_both(name: str, arch: str) -> None:
    abi, profile = ABIS[arch], PROFILES[name]
    guard = compile_filter(guard_profile(), arch=arch).instructions
    alone = compile_filter(profile, arch=arch).instructions
    both = compile_filter(profile, arch=arch, beside=guard_profile()).instructions
    table = numbers(abi)
    chosen = random.Random(f"{name} {arch}")
    differs = 0
    for call in [*(one for one in GUARDED if one in table), *chosen.sample(sorted(table), 60)]:
        for _ in range(200):
            args = [
                chosen.choice((0, 0o4755, 0o2000, 0o644, 0o100, 0o20200000, chosen.getrandbits(64))) for _ in range(6)
            ]
            one, other, found = (run(p, table[call], abi.audit, args=args)[0] for p in (alone, guard, both))
            # min() keeps the first of equals: the kernel takes that of the filter installed last.
            assert found == min((one, other), key=severity), (call, args)
            differs += found != one
    assert differs or name in ("errno", "trap", "kill"), "the guard added something"


def test_outcomes_know_what_is_unknown() -> None:
    program = compile_filter(PROFILES["allow"], beside=guard_profile()).instructions
    abi = ABIS["x86_64"]
    openat = numbers(abi)["openat"]
    assert outcomes(program, openat, abi.audit, (None, None, 0)) == {ALLOW}
    assert len(outcomes(program, openat, abi.audit)) == 3
    assert outcomes(program, numbers(abi)["read"], abi.audit) == {ALLOW}
