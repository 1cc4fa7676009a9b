"""The profiles that come with the package."""

from __future__ import annotations

from functools import cache

from immure.errors import ProfileError

from .packaged import read_packaged
from .parse import parse_profile
from .profile import Profile

PRESETS = ("default",)


@cache
def load_preset(name: str) -> Profile:
    """The preset called `name`. Raises ProfileError for a name that is none of PRESETS."""
    return parse_profile(preset_text(name), source=f"{name}.json")


def preset_text(name: str) -> bytes:
    """The JSON text of a preset. Raises ProfileError for a name that is none of PRESETS."""
    if name not in PRESETS:
        raise ProfileError(f"no such preset: {name}", need=f"one of {', '.join(PRESETS)}")
    return read_packaged(f"presets/{name}.json")
