"""The values of one argument, sorted by which conditions they meet: every combination that some value has.

Exact over all 64 bits, without sampling: intervals are cut where an ordered condition changes, and inside each the
masks are decided by search over fixed bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .profile import MAX_U64, Arg, Operator

Truths = tuple[bool, ...]


class Bits(NamedTuple):
    """Values whose bits under `mask` are `value`."""

    mask: int
    value: int


_ANY = Bits(0, 0)


def holds(condition: Arg, value: int) -> bool:
    """Whether an argument of this value meets the condition."""
    wanted = condition.value
    match condition.op:
        case Operator.NE:
            return value != wanted
        case Operator.LT:
            return value < wanted
        case Operator.LE:
            return value <= wanted
        case Operator.EQ:
            return value == wanted
        case Operator.GE:
            return value >= wanted
        case Operator.GT:
            return value > wanted
        case Operator.MASKED_EQ:
            return value & wanted == condition.value_two & wanted


def classes(conditions: Sequence[Arg]) -> dict[Truths, int]:
    """Which of `conditions`, all on one argument, can hold together → the least value for which they do."""
    found: dict[Truths, int] = {}
    for low, high in _intervals(conditions):
        for value in _values(conditions, low, high):
            found.setdefault(tuple(holds(one, value) for one in conditions), value)
    return found


def _intervals(conditions: Sequence[Arg]) -> Iterator[tuple[int, int]]:
    """Ranges of values in which no ordered condition changes."""
    starts = {0}
    for one in conditions:
        if one.op is not Operator.MASKED_EQ:
            starts.update(value for value in (one.value, one.value + 1) if value <= MAX_U64)
    ordered = sorted(starts)
    yield from zip(ordered, [start - 1 for start in ordered[1:]] + [MAX_U64], strict=True)


def _values(conditions: Sequence[Arg], low: int, high: int) -> Iterator[int]:
    """A value for each combination of masks that occurs between `low` and `high`, both included."""
    masks = list(
        dict.fromkeys(Bits(one.value, one.value_two & one.value) for one in conditions if one.op is Operator.MASKED_EQ)
    )
    yield from _split(masks, low, high, _ANY, [])


def _split(masks: Sequence[Bits], low: int, high: int, fixed: Bits, refused: list[Bits]) -> Iterator[int]:
    value = _least(low, high, fixed, refused)
    if value is None:
        return
    if not masks:
        yield value
        return
    first, rest = masks[0], masks[1:]
    both = _both(fixed, first)
    if both is not None:
        yield from _split(rest, low, high, both, refused)
    yield from _split(rest, low, high, fixed, [*refused, first])


def _both(one: Bits, other: Bits) -> Bits | None:
    """What has the bits of both, if anything does."""
    if (one.value ^ other.value) & one.mask & other.mask:
        return None
    return Bits(one.mask | other.mask, one.value | other.value)


def _least(low: int, high: int, fixed: Bits, refused: Sequence[Bits]) -> int | None:
    """A value from `low` to `high` that has the fixed bits and none of the refused patterns."""
    value = _from(low, fixed)
    if value is None or value > high:
        return None
    broken = next((one for one in refused if value & one.mask == one.value), None)
    if broken is None:
        return value
    # What avoids the pattern differs from it in a first bit: one case for each bit that is still free.
    free = broken.mask & ~fixed.mask
    same = fixed
    while free:
        bit = 1 << (free.bit_length() - 1)
        free ^= bit
        wanted = broken.value & bit
        found = _least(low, high, Bits(same.mask | bit, same.value | (bit ^ wanted)), refused)
        if found is not None:
            return found
        same = Bits(same.mask | bit, same.value | wanted)
    return None


def _from(low: int, fixed: Bits) -> int | None:
    """The least value from `low` on that has the fixed bits."""
    if low & fixed.mask == fixed.value:
        return low
    # It is as `low` above some bit, has that bit where `low` has not, and is as small as may be below.
    for position in range(64):
        bit = 1 << position
        above = MAX_U64 ^ (2 * bit - 1)
        if low & bit or (fixed.mask & bit and not fixed.value & bit):
            continue
        if (low ^ fixed.value) & fixed.mask & above:
            continue
        return low & above | bit | fixed.value & (bit - 1)
    return None
