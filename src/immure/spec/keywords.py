"""Keywords of `run()` and `Sandbox()` to a spec: the short forms that a person types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from immure.errors import SpecError
from immure.spec.loading import convert
from immure.spec.models import Metadata, SandboxSpec

#: Keywords, and where each goes in the spec.
_PLACES: dict[str, tuple[str, ...]] = {
    "level": ("level",),
    "runtime": ("runtime",),
    "image": ("image",),
    "env": ("env",),
    "workdir": ("workdir",),
    "mounts": ("files", "mounts"),
    "landlock": ("files", "landlock"),
    "seccomp": ("syscalls", "profile"),
    "network": ("network", "mode"),
    "user": ("processes", "user"),
    "capabilities": ("processes", "capabilities"),
    "namespaces": ("processes", "namespaces"),
    "limits": ("limits",),
    "gvisor": ("gvisor",),
    "protections": ("protections",),
}
#: Tables that a keyword adds to.
_ADDED = ("limits", "env", "protections")
#: Limits may be given by themselves as well: `run(…, timeout_s=5)`.
_LIMITS = ("memory_mib", "cpus", "pids", "disk_mib", "timeout_s", "output_mib")


def check_name(name: str) -> str:
    """The name of a box, which becomes its host name. Raises SpecError."""
    try:
        return msgspec.convert({"name": name}, Metadata).name
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise SpecError(
            "not a host name",
            path="$.metadata.name",
            need="a to z, 0 to 9 and - inside, 63 characters at most",
            have=ascii(name),
        ) from error


def check_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Variables of a single command. Raises SpecError for a name that is none."""
    return convert({"env": dict(env)}, SandboxSpec, path="$.spec").env


def spec_from_keywords(keywords: Mapping[str, Any], base: SandboxSpec | None = None) -> SandboxSpec:
    """`base`, or the defaults, with the keywords put in. Raises SpecError naming the keyword."""
    raw: dict[str, Any] = msgspec.to_builtins(base) if base is not None else {}
    for name, value in keywords.items():
        if value is None:
            continue
        if name in _LIMITS:
            _put(raw, ("limits",), {name: value})
            continue
        place = _PLACES.get(name)
        if place is None:
            raise SpecError(
                f"unknown keyword {name!r}", path="keywords", need="one of " + ", ".join((*_PLACES, *_LIMITS))
            )
        _put(raw, place, _long_form(name, value))
    return convert(raw, SandboxSpec, path="$.spec")


def _put(raw: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for step in place[:-1]:
        raw = raw.setdefault(step, {})
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    present = raw.get(place[-1])
    if place[-1] not in _ADDED or present is None:
        raw[place[-1]] = value
    elif isinstance(present, dict) and isinstance(value, dict):
        cast("dict[str, Any]", present).update(cast("dict[str, Any]", value))
    elif isinstance(present, dict):
        # No table: the conversion says so.
        raw[place[-1]] = value


def _long_form(name: str, value: Any) -> Any:
    if name == "mounts":
        return [_mount(one) for one in cast("list[Any]", value)] if isinstance(value, list | tuple) else _mount(value)
    if name == "level":
        return str(value)
    if name == "image" and hasattr(value, "__fspath__"):
        # A path object has lost its ./ and is a path all the same.
        path = str(value.__fspath__())
        return path if path.startswith("/") else f"./{path}"
    if name == "env" and isinstance(value, Mapping):
        return {key: str(text) for key, text in cast("Mapping[str, Any]", value).items()}
    if name == "capabilities" and isinstance(value, list | tuple):
        return {"add": list(cast("list[Any]", value))}
    return value


def _path_text(value: Any) -> str:
    """A path object as text; anything else is no part of a mount."""
    if hasattr(value, "__fspath__"):
        return str(value.__fspath__())
    raise SpecError("a mount's members are text", path="$.spec.files.mounts", have=repr(value))


def _mount(value: Any) -> Any:
    """A tuple `(source, target)` or `(source, target, access)`, or the mapping of the spec."""
    if isinstance(value, list | tuple):
        parts = [str(part) for part in cast("list[Any]", value)]
        if len(parts) in (2, 3):
            return {"source": parts[0], "target": parts[1], "access": parts[2] if len(parts) == 3 else "ro"}
    elif isinstance(value, dict | msgspec.Struct):
        return msgspec.to_builtins(cast("Any", value), enc_hook=_path_text)
    have = repr(cast("Any", value))
    raise SpecError("a mount is a tuple (source, target[, access]) or a mapping", path="$.spec.files.mounts", have=have)
