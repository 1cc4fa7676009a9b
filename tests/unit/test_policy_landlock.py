"""Landlock's ABIs as data. The numbers are those of include/uapi/linux/landlock.h."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.policy.landlock import (
    FILE_RIGHTS,
    LEAST_ABI,
    READ,
    WRITE,
    Fs,
    Scope,
    compile_ruleset,
    handled_fs,
    handled_tcp,
    scopes,
    uncovered,
)

EVERY = Fs((1 << 17) - 1)


@pytest.mark.parametrize(
    ("abi", "rights", "tcp", "scoped"),
    [
        (0, 0, 0, 0),
        (1, 0x1FFF, 0, 0),
        (2, 0x3FFF, 0, 0),
        (3, 0x7FFF, 0, 0),
        (4, 0x7FFF, 0b11, 0),
        (5, 0xFFFF, 0b11, 0),
        (6, 0xFFFF, 0b11, 0b11),
        (7, 0xFFFF, 0b11, 0b11),
        (8, 0xFFFF, 0b11, 0b11),
        (9, 0x1FFFF, 0b11, 0b11),
        # A later one has at least what is known of this one.
        (12, 0x1FFFF, 0b11, 0b11),
    ],
)
def test_what_each_abi_handles(abi: int, rights: int, tcp: int, scoped: int) -> None:
    assert (handled_fs(abi), handled_tcp(abi), scopes(abi)) == (rights, tcp, scoped)


def test_the_least_abi_is_the_first_with_truncation() -> None:
    assert Fs.TRUNCATE in handled_fs(LEAST_ABI)
    assert Fs.TRUNCATE not in handled_fs(LEAST_ABI - 1)


_RULES = st.lists(st.tuples(st.sampled_from(["/a", "/b", "/c"]), st.integers(0, int(EVERY)).map(Fs)), max_size=5)


@given(st.integers(1, 10), _RULES)
def test_a_ruleset_allows_what_was_wanted_and_no_more(abi: int, wanted: list[tuple[str, Fs]]) -> None:
    ruleset = compile_ruleset(abi, tuple(wanted))
    assert ruleset.handled_fs == handled_fs(abi)
    assert ruleset.scoped == scopes(abi)
    given_rights = [(path, access & handled_fs(abi)) for path, access in wanted]
    assert list(ruleset.rules) == [(path, access) for path, access in given_rights if access]


@given(st.integers(1, 9), _RULES)
def test_a_newer_abi_never_handles_less(abi: int, wanted: list[tuple[str, Fs]]) -> None:
    older, newer = compile_ruleset(abi, tuple(wanted)), compile_ruleset(abi + 1, tuple(wanted))
    assert older.handled_fs & ~newer.handled_fs == 0
    assert older.scoped & ~newer.scoped == 0


def test_reading_changes_nothing() -> None:
    changing = Fs.WRITE_FILE | Fs.TRUNCATE | Fs.REMOVE_DIR | Fs.REMOVE_FILE | Fs.MAKE_REG | Fs.MAKE_DIR | Fs.REFER
    assert not READ & changing
    assert WRITE & changing == changing


def test_nobody_makes_devices() -> None:
    assert not (READ | WRITE | FILE_RIGHTS) & (Fs.MAKE_CHAR | Fs.MAKE_BLOCK)


def test_a_file_has_no_rights_of_folders() -> None:
    of_folders = Fs.READ_DIR | Fs.REMOVE_DIR | Fs.REMOVE_FILE | Fs.MAKE_REG | Fs.REFER
    assert not FILE_RIGHTS & of_folders


@pytest.mark.parametrize(
    ("abi", "gaps"),
    [(3, 4), (4, 4), (5, 3), (6, 2), (7, 2), (8, 2), (9, 1)],
)
def test_the_gaps_close_with_each_abi(abi: int, gaps: int) -> None:
    assert len(uncovered(abi)) == gaps
    assert any("ioctl" in one for one in uncovered(abi)) == (Fs.IOCTL_DEV not in handled_fs(abi))
    assert any("signals" in one for one in uncovered(abi)) == (Scope.SIGNAL not in scopes(abi))
    assert any("by path" in one for one in uncovered(abi)) == (Fs.RESOLVE_UNIX not in handled_fs(abi))
