"""Where the native program is."""

from __future__ import annotations

import os

from immure.errors import RuntimeUnavailable


def native_path() -> str:
    """Where `immure-init` should be: $IMMURE_INIT, or the one that the package ships."""
    path = os.environ.get("IMMURE_INIT")
    if not path:
        here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 (no pathlib on the hot path)
        path = here + "/_native/immure-init"
    return path


def native_program() -> str:
    """The path of `immure-init`. Raises RuntimeUnavailable where it is missing."""
    path = native_path()
    if not os.access(path, os.X_OK):
        raise RuntimeUnavailable(
            "the native program is missing",
            need="an executable immure-init",
            have=path,
            hint="install the wheel for this platform, or build it: pip install . (needs cargo)",
        )
    return path
