"""Compiled filters. Those of the presets are shipped; others are kept in the cache, by content.

`tools/compile_presets.py` writes `compiled_presets.json`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from functools import cache as once
from hashlib import sha256

import msgspec

from immure.engine import cache
from immure.plan.filters import BoxFilters, compile_filters
from immure.policy.seccomp import Profile, guard_profile, preset_text
from immure.policy.seccomp.formats import to_oci

SHIPPED_SINCE = (5, 13)
"""Since this kernel, the first with Landlock, no preset has a rule that looks at the kernel's version."""

_FORM = 4


class Shipped(msgspec.Struct, frozen=True):
    """The filters of one preset for one architecture, and from which texts they came."""

    sha256: str
    filters: BoxFilters


def preset_filters(name: str, *, arch: str, kernel: tuple[int, int], keep: int) -> BoxFilters | None:
    """The shipped filters of a preset; None where there are none for this host, or they are not of this text."""
    if keep or kernel < SHIPPED_SINCE:
        return None
    shipped = _shipped().get(f"{name}/{arch}")
    return shipped.filters if shipped is not None and shipped.sha256 == preset_sha256(name) else None


def preset_sha256(name: str) -> str:
    """The hash of what a preset's filters come from."""
    return sha256(preset_text(name) + to_oci(guard_profile())).hexdigest()


def kept_filters(
    text: bytes, parse: Callable[[], Profile], *, arch: str, kernel: tuple[int, int], keep: int
) -> BoxFilters:
    """The filters of a profile that was written as `text`, compiled unless they are in the cache.

    Raises ProfileError as `parse` and `compile_filters` do.
    """
    name = "filters-" + cache.key_of(_FORM, cache.package_key(), text, arch, kernel, keep)
    known = _decoded(cache.load(name))
    if known is None:
        known = compile_filters(parse(), arch=arch, kernel=kernel, keep=keep)
        cache.store(name, msgspec.msgpack.encode(known))
    return known


def _decoded(content: object) -> BoxFilters | None:
    if not isinstance(content, bytes):
        return None
    try:
        return msgspec.msgpack.decode(content, type=BoxFilters)
    except msgspec.DecodeError:
        return None


@once
def _shipped() -> dict[str, Shipped]:
    # Not importlib.resources, which is slow to import.
    content = pkgutil.get_data("immure.engine", "compiled_presets.json")
    return msgspec.json.decode(content or b"{}", type=dict[str, Shipped])
