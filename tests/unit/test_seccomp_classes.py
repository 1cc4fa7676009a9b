"""Which conditions on one argument can hold together: exact, against all values of a small range."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from immure.policy.seccomp import Arg, Operator
from immure.policy.seccomp.classes import classes, holds

U64 = 2**64 - 1
_SMALL = st.integers(0, 63)
_CONDITIONS = st.builds(
    lambda op, value, two: Arg(0, value, op, two if op is Operator.MASKED_EQ else 0),
    st.sampled_from(list(Operator)),
    _SMALL,
    _SMALL,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_CONDITIONS, min_size=1, max_size=6))
def test_every_combination_that_some_value_has_and_no_other(conditions: list[Arg]) -> None:
    # Above 127 all is as with one higher bit: the ordered conditions are decided, and the masks see the low bits.
    brute = {tuple(holds(one, value) for one in conditions) for value in range(256)}
    assert set(classes(conditions)) == brute


@settings(max_examples=200, deadline=None)
@given(st.lists(_CONDITIONS, min_size=1, max_size=5), st.integers(0, 58))
def test_the_same_in_any_part_of_the_word(conditions: list[Arg], shift: int) -> None:
    masks = [one for one in conditions if one.op is Operator.MASKED_EQ]
    assume(masks)
    moved = [Arg(0, one.value << shift, one.op, one.value_two << shift) for one in masks]
    assert set(classes(moved)) == set(classes(masks))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.builds(
            Arg,
            st.just(0),
            st.integers(0, U64) | st.sampled_from([0, 1, U64, 1 << 63, 0xFFFF_FFFF, 1 << 32]),
            st.sampled_from(list(Operator)),
            st.integers(0, U64),
        ),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.integers(0, U64), min_size=1, max_size=20),
)
def test_no_value_of_64_bits_is_missed(conditions: list[Arg], values: list[int]) -> None:
    found = classes(conditions)
    for truths, value in found.items():
        assert 0 <= value <= U64
        assert tuple(holds(one, value) for one in conditions) == truths
    near = {abs(one.value + step) & U64 for one in conditions for step in (-1, 0, 1)}
    for value in {*values, *near, *(one.value_two & one.value for one in conditions)}:
        assert tuple(holds(one, value) for one in conditions) in found


def test_masks_that_exclude_each_other() -> None:
    low, high = (Arg(0, 3, Operator.MASKED_EQ, value) for value in (1, 2))
    some = Arg(0, 3, Operator.MASKED_EQ, 0)
    other = Arg(0, 3, Operator.MASKED_EQ, 3)
    # One of four always holds.
    assert sorted(map(sum, classes([low, high, some, other]))) == [1, 1, 1, 1]
