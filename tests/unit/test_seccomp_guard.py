"""The guard filter: no setuid or setgid file can be made, and nothing else is changed."""

from __future__ import annotations

import pytest
from seccomp_cases import U64, X86_ABIS, edge_calls, expected, returned

from immure.policy.seccomp import ABIS, Call, compile_filter, constant_allow, guard_profile, numbers
from immure.policy.seccomp.actions import ALLOW, describe

PROGRAM = compile_filter(guard_profile())

MODES = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "creat": 1, "mknod": 1, "mknodat": 2}
OPENS = {"open": (1, 2), "openat": (2, 3)}
O_CREAT, O_TMPFILE = 0o100, 0o20200000
GARBAGE = 0xDEAD_BEEF_0000_0000
"""Upper halves of registers, which the kernel ignores."""


def ask(abi: str, name: str, **args: int) -> str:
    values = tuple(args.get(f"a{index}", 0) for index in range(6))
    return describe(returned(PROGRAM, Call(abi, numbers(ABIS[abi])[name], values)))


@pytest.mark.parametrize("abi", X86_ABIS)
@pytest.mark.parametrize("garbage", [0, GARBAGE])
@pytest.mark.parametrize(("name", "index"), MODES.items())
def test_modes(abi: str, name: str, index: int, garbage: int) -> None:
    for mode in (0o4755, 0o2755, 0o6755, 0o104755, 0o4000, 0o2000):
        assert ask(abi, name, **{f"a{index}": mode | garbage}) == "ERRNO EPERM"
    for mode in (0, 0o755, 0o1777, 0o100644, 0o777 | garbage):
        assert ask(abi, name, **{f"a{index}": mode | garbage}) == "ALLOW"


@pytest.mark.parametrize("abi", X86_ABIS)
@pytest.mark.parametrize("garbage", [0, GARBAGE])
@pytest.mark.parametrize(("name", "places"), OPENS.items())
def test_opens(abi: str, name: str, places: tuple[int, int], garbage: int) -> None:
    def opened(flags: int, mode: int) -> str:
        return ask(abi, name, **{f"a{places[0]}": flags | garbage, f"a{places[1]}": mode | garbage})

    for flags in (O_CREAT, O_CREAT | 0o1102, O_TMPFILE, O_TMPFILE | 2):
        assert opened(flags, 0o4755) == opened(flags, 0o2644) == opened(flags, 0o6000) == "ERRNO EPERM"
        assert opened(flags, 0o1777) == "ALLOW"
    # Without a file to make the kernel doesn't read the mode: what happens to be there must not matter.
    assert opened(0o2000000, 0o7777) == opened(0o200000, 0xFFFF_FFFF) == "ALLOW"


@pytest.mark.parametrize("abi", X86_ABIS)
@pytest.mark.parametrize("name", ["fchmodat2", "openat2", "io_uring_setup"])
def test_calls_whose_mode_is_in_memory_look_missing(abi: str, name: str) -> None:
    assert ask(abi, name) == ask(abi, name, a0=U64, a1=U64, a2=U64, a3=U64) == "ERRNO ENOSYS"


@pytest.mark.parametrize("abi", X86_ABIS)
@pytest.mark.parametrize("name", ["splice", "sendfile"])
def test_calls_that_may_hold_a_pipe_s_lock_are_invalid(abi: str, name: str) -> None:
    assert ask(abi, name) == ask(abi, name, a0=U64, a1=U64, a2=U64, a3=U64) == "ERRNO EINVAL"


@pytest.mark.parametrize("abi", X86_ABIS)
def test_every_other_call_is_allowed_known_or_not(abi: str) -> None:
    guarded = {*MODES, *OPENS, "fchmodat2", "openat2", "io_uring_setup", "splice", "sendfile", "sendfile64"}
    table = numbers(ABIS[abi])
    numbers_guarded = {table[name] for name in guarded if name in table}
    base = ABIS[abi].first
    for number in range(base, base + 1000):
        found = {returned(PROGRAM, Call(abi, number, (fill,) * 6)) for fill in (0, U64)}
        assert (found == {ALLOW}) == (number not in numbers_guarded)
        cached = constant_allow(PROGRAM.instructions, number, ABIS[abi].audit)
        assert cached == (number not in numbers_guarded)


def test_the_program_is_the_reference() -> None:
    for call in edge_calls(guard_profile()):
        assert returned(PROGRAM, call) == expected(guard_profile(), call), call


def test_other_architectures_have_a_guard_too() -> None:
    program = compile_filter(guard_profile(), arch="aarch64")
    for abi, name, mode_at in (("aarch64", "fchmodat", 2), ("arm", "chmod", 1), ("arm", "mknod", 1)):
        args = tuple(0o4755 if index == mode_at else 0 for index in range(6))
        found = returned(program, Call(abi, numbers(ABIS[abi])[name], args))
        assert describe(found) == "ERRNO EPERM"


def test_it_is_short() -> None:
    assert len(PROGRAM.instructions) <= 65
    assert PROGRAM.max_steps <= 14
