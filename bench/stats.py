"""Percentiles and ratios of samples that were taken in turn. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    p10: float
    p50: float
    p99: float
    n: int


@dataclass(frozen=True)
class Ratio:
    """A ratio of two percentiles, and the interval in which it lies with 95 % confidence."""

    value: float
    low: float
    high: float


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Linear between the two nearest ranks, as NumPy's default."""
    position = fraction * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def summarize(samples: Sequence[float]) -> Summary:
    ordered = sorted(samples)
    return Summary(*(percentile(ordered, f) for f in (0.10, 0.50, 0.99)), n=len(ordered))


def ratio_of(
    numerator: Sequence[float],
    denominator: Sequence[float],
    *,
    at: float = 0.5,
    to_at: float | None = None,
    resamples: int = 400,
    seed: int = 0,
) -> Ratio:
    """Of the percentiles `at`, or of `at` and `to_at`. The interval is a bootstrap's: both series are drawn again with
    replacement.
    """
    draw = random.Random(seed)

    def ratio(above: Sequence[float], below: Sequence[float]) -> float:
        return percentile(sorted(above), at) / percentile(sorted(below), at if to_at is None else to_at)

    spread = sorted(
        ratio(draw.choices(numerator, k=len(numerator)), draw.choices(denominator, k=len(denominator)))
        for _ in range(resamples)
    )
    return Ratio(ratio(numerator, denominator), percentile(spread, 0.025), percentile(spread, 0.975))
