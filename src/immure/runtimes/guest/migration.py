"""What came of a machine's move."""

from __future__ import annotations

from msgspec import Struct


class Migration(Struct, frozen=True):
    """How a machine was moved: for how long it stood still, and how long it all took, in seconds."""

    downtime_s: float
    total_s: float
