"""The profiles that come with the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from immure.errors import ProfileError

from .packaged import read_packaged
from .parse import parse_profile
from .profile import Profile

PRESETS = ("default", "strict", "python", "node", "build", "network-client")
"""Names of the presets. `default` is for any program; each of the others allows less than it, and nothing more."""


@cache
def load_preset(name: str) -> Profile:
    """The preset called `name`. Raises ProfileError for a name that is none of PRESETS."""
    return parse_profile(preset_text(name), source=f"{name}.json")


def preset_text(name: str) -> bytes:
    """The JSON text of a preset. Raises ProfileError for a name that is none of PRESETS."""
    if name not in PRESETS:
        raise ProfileError(f"no such preset: {name}", need=f"one of {', '.join(PRESETS)}", hint=nearest_preset(name))
    return read_packaged(f"presets/{name}.json")


class Presets(Mapping[str, Profile]):
    """The presets by name, each read when it is asked for."""

    def __getitem__(self, name: str) -> Profile:
        if name not in PRESETS:
            raise KeyError(name)
        return load_preset(name)

    def __iter__(self) -> Iterator[str]:
        return iter(PRESETS)

    def __len__(self) -> int:
        return len(PRESETS)


def nearest_preset(name: str) -> str | None:
    """For an error: the preset that `name` may have been meant to be, as a hint."""
    # Only the way to an error needs it, and it is slow to import.
    from difflib import get_close_matches

    near = get_close_matches(name.lower(), PRESETS, n=1)
    return f"did you mean the preset `{near[0]}`?" if near else None
