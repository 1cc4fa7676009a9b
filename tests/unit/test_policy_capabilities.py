"""Which capabilities are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immure.errors import SpecError
from immure.policy.capabilities import NAMES, known, resolve, securebits

LAST = 40
EVERYTHING = (1 << 41) - 1
BIND, RAW = 1 << 10, 1 << 13


@pytest.mark.parametrize(
    ("add", "drop", "kept"),
    [
        ((), ("ALL",), 0),
        ((), (), 0),
        (("NET_RAW",), ("ALL",), RAW),
        (("NET_RAW", "NET_BIND_SERVICE"), ("ALL",), RAW | BIND),
        (("ALL",), (), EVERYTHING),
        # The order of Kubernetes' runtimes: add ALL, drop ALL, single adds, single drops.
        (("ALL",), ("ALL",), 0),
        (("ALL", "NET_RAW"), ("ALL",), RAW),
        (("ALL",), ("NET_RAW",), EVERYTHING & ~RAW),
        (("NET_RAW",), ("NET_RAW",), 0),
        (("NET_RAW", "NET_BIND_SERVICE"), ("ALL", "NET_RAW"), BIND),
        # Names may be written in other ways.
        (("CAP_NET_RAW",), (), RAW),
        (("net_raw",), (), RAW),
        (("cap_net_raw",), (), RAW),
        (("all",), (), EVERYTHING),
    ],
)
def test_what_is_kept(add: tuple[str, ...], drop: tuple[str, ...], kept: int) -> None:
    assert resolve(add, drop, last=LAST, path="$") == kept


@pytest.mark.parametrize("field", ["add", "drop"])
def test_an_unknown_name_is_an_error(field: str) -> None:
    names = {"add": (), "drop": (), field: ("NET_RAW", "NET_ROW")}
    with pytest.raises(SpecError) as caught:
        resolve(names["add"], names["drop"], last=LAST, path="$.caps")
    assert caught.value.path == f"$.caps.{field}[1]"
    assert "'NET_ROW'" in str(caught.value)


def test_a_name_that_came_after_this_kernel_is_an_error() -> None:
    assert resolve(("CHECKPOINT_RESTORE",), (), last=40, path="$") == 1 << 40
    with pytest.raises(SpecError, match="a capability of this kernel"):
        resolve(("CHECKPOINT_RESTORE",), (), last=39, path="$")


def test_the_numbers_are_the_kernels() -> None:
    assert len(NAMES) == len(set(NAMES)) == 41
    assert [NAMES.index(name) for name in ("CHOWN", "SETUID", "SYS_ADMIN", "MKNOD", "BPF")] == [0, 7, 21, 27, 39]


_NAMES = st.lists(st.sampled_from([*NAMES, "ALL"]), max_size=6).map(tuple)


@given(_NAMES, _NAMES, st.sampled_from(NAMES))
def test_to_drop_more_never_keeps_more(add: tuple[str, ...], drop: tuple[str, ...], also: str) -> None:
    kept = resolve(add, drop, last=LAST, path="$")
    fewer = resolve(add, (*drop, also), last=LAST, path="$")
    assert fewer == kept & ~(1 << NAMES.index(also))


@given(_NAMES, _NAMES)
def test_nothing_is_kept_that_was_not_added(add: tuple[str, ...], drop: tuple[str, ...]) -> None:
    kept = resolve(add, drop, last=LAST, path="$")
    assert kept & ~known(LAST) == 0
    if "ALL" not in add:
        assert {name for bit, name in enumerate(NAMES) if kept >> bit & 1} <= set(add)


@pytest.mark.parametrize("last", [0, 31, 37, 40, 63])
def test_the_known_ones_are_all_up_to_the_last(last: int) -> None:
    assert known(last).bit_count() == known(last).bit_length() == last + 1


def test_uid_0_gets_nothing_by_being_0() -> None:
    noroot_locked = 0b11
    assert securebits(0) & noroot_locked == securebits(RAW) & noroot_locked == noroot_locked


def test_no_ambient_capability_without_a_kept_one() -> None:
    no_ambient_locked, no_fixup_locked = 0xC0, 0x0C
    assert securebits(0) & no_ambient_locked == no_ambient_locked
    assert securebits(RAW) & no_ambient_locked == 0
    assert securebits(RAW) & no_fixup_locked == no_fixup_locked
