"""Presets: mounts that a kind of workload needs."""

from __future__ import annotations

import sys
from pathlib import Path

from immure.errors import SpecError

PRESETS = ("python",)


def preset_mounts(name: str) -> list[tuple[str, str, str]]:
    """The mounts of a preset. `python` shows the calling interpreter's prefixes read-only."""
    if name != "python":
        raise SpecError("unknown preset", path="preset", need=" or ".join(PRESETS), have=repr(name))
    prefixes = {str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)}
    return [(prefix, prefix, "ro") for prefix in sorted(prefixes) if not Path(prefix).is_relative_to("/usr")]
