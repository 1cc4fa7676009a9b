"""Whose a box is: the process's that made it, and not that of processes forked from it."""

from __future__ import annotations

import os

from immure.errors import BoxLost


def check_owner(owner: int, what: str, hint: str) -> None:
    """Raises BoxLost in a process other than `owner`."""
    here = os.getpid()
    if owner != here:
        raise BoxLost(
            f"this {what} belongs to another process",
            need=f"process {owner}, which made it",
            have=f"process {here}, forked from it",
            hint=hint,
        )
