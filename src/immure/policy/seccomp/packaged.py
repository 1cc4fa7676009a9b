"""The one place of this package that reads files: the data that is installed beside the code."""

from __future__ import annotations

import pkgutil

_PACKAGE = "immure.policy.seccomp"


def read_packaged(name: str) -> bytes:
    """The bytes of `name`, such as `presets/default.json`. Raises FileNotFoundError."""
    # Not importlib.resources: it pulls in tempfile, zipfile and inspect, 16 ms of a cold start.
    data = pkgutil.get_data(_PACKAGE, name)
    if data is None:
        raise FileNotFoundError(name)
    return data
