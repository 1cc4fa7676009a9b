"""`award` over every evidence that there can be: all parts held or not, every boundary, with hardware or not."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise, product

from immure.evidence.levels import BOUNDARIES, L1_PARTS, L2_PARTS, award, capped_by

PARTS = sorted(L2_PARTS)
LEVELS = ["L0", "L1", "L2", "L3", "L4"]
SITUATIONS = list(product(BOUNDARIES, (False, True)))


def every_subset() -> Iterator[frozenset[str]]:
    for size in range(len(PARTS) + 1):
        for chosen in combinations(PARTS, size):
            yield frozenset(chosen)


def reference(held: frozenset[str], boundary: str, hardware: bool) -> str:
    """Definition 8.2, in other words."""
    if any(part not in held for part in L1_PARTS):
        return "L0"
    if any(part not in held for part in L2_PARTS):
        return "L1"
    return {
        ("kernel", False): "L2",
        ("kernel", True): "L2",
        ("user_kernel", False): "L3",
        ("user_kernel", True): "L3",
        ("vm", False): "L3",
        ("vm", True): "L4",
    }[boundary, hardware]


def test_the_parts_are_those_of_the_definitions() -> None:
    assert len(PARTS) == 11
    assert L1_PARTS < L2_PARTS
    assert {part.split(".")[0] for part in PARTS} == {"syscalls", "files", "network", "processes", "identity"}
    assert BOUNDARIES == ("kernel", "user_kernel", "vm")


def test_it_is_the_definition_everywhere() -> None:
    seen = set()
    for held in every_subset():
        for boundary, hardware in SITUATIONS:
            level = award(held, boundary, hardware=hardware)
            assert level == reference(held, boundary, hardware), (held, boundary, hardware)
            seen.add(level)
    assert seen == set(LEVELS)


def test_more_never_lowers_it() -> None:
    for held in every_subset():
        for (boundary, hardware), part in product(SITUATIONS, PARTS):
            before = award(held, boundary, hardware=hardware)
            assert award(held | {part}, boundary, hardware=hardware) >= before
        for weaker, stronger in pairwise(BOUNDARIES):
            for hardware in (False, True):
                assert award(held, stronger, hardware=hardware) >= award(held, weaker, hardware=hardware)
        for boundary in BOUNDARIES:
            assert award(held, boundary, hardware=True) >= award(held, boundary)


def test_it_is_pure() -> None:
    held = frozenset(PARTS)
    assert [award(held, "vm", hardware=True) for _ in range(3)] == ["L4"] * 3
    assert held == L2_PARTS


def test_no_part_makes_up_for_another() -> None:
    for part in PARTS:
        assert award(L2_PARTS - {part}, "vm", hardware=True) == ("L0" if part in L1_PARTS else "L1")


def test_what_nobody_knows_of_counts_for_nothing() -> None:
    for held in every_subset():
        assert award(held | {"files.good_intentions"}) == award(held)


def test_an_unknown_boundary_is_the_weakest() -> None:
    assert award(L2_PARTS, "paper", hardware=True) == "L2"


def test_what_caps_it_is_what_is_missing_for_the_next() -> None:
    for held in every_subset():
        missing = capped_by(held)
        assert missing == sorted(missing)
        if award(held) == "L2":
            assert missing == []
        else:
            assert missing
            assert held.isdisjoint(missing)
            assert award(held | set(missing)) > award(held)
            for part in missing:
                assert award(held | (set(missing) - {part})) == award(held)
