"""The tables of system calls."""

from __future__ import annotations

import pytest

from immure.policy.seccomp import ABIS, name_of, numbers

X32 = 0x4000_0000


@pytest.mark.parametrize(
    ("name", "x86_64", "i386", "x32"),
    [
        ("read", 0, 3, X32 + 0),
        ("rt_sigaction", 13, 174, X32 + 512),
        ("execve", 59, 11, X32 + 520),
        ("pwritev2", 328, 379, X32 + 547),
        ("clone3", 435, 435, X32 + 435),
        ("openat2", 437, 437, X32 + 437),
        ("fchmodat2", 452, 452, X32 + 452),
        ("map_shadow_stack", 453, 453, X32 + 453),
        ("futex_wake", 454, 454, X32 + 454),
        ("mseal", 462, 462, X32 + 462),
        ("setxattrat", 463, 463, X32 + 463),
        ("open_tree_attr", 467, 467, X32 + 467),
        ("file_getattr", 468, 468, X32 + 468),
        # Gone from the kernel, but not from profiles.
        ("uselib", 134, 86, None),
        ("nfsservctl", 180, 169, None),
        ("socketcall", None, 102, None),
        ("clock_gettime64", None, 403, None),
    ],
)
def test_numbers(name: str, x86_64: int | None, i386: int | None, x32: int | None) -> None:
    found = [numbers(ABIS[abi]).get(name) for abi in ("x86_64", "i386", "x32")]
    assert found == [x86_64, i386, x32]


@pytest.mark.parametrize("abi", ABIS.values(), ids=ABIS)
def test_a_name_is_a_number_and_back(abi: object) -> None:
    table = numbers(abi)  # type: ignore[arg-type]
    aliases = {"arm_sync_file_range", "sync_file_range2"}
    assert len(table) > 300
    for name, number in table.items():
        assert name_of(abi, number) == name or name in aliases  # type: ignore[arg-type]


def test_x32_numbers_carry_its_bit_and_no_other_ones_do() -> None:
    for abi in ABIS.values():
        assert all((number >= X32) == (abi.name == "x32") for number in numbers(abi).values())
