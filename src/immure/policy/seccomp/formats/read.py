"""Any known form of a profile → `Profile`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from immure.errors import ProfileError
from immure.policy.seccomp.faults import explain
from immure.policy.seccomp.parse import decode_json, parse_profile
from immure.policy.seccomp.profile import Profile

from .kubernetes import KIND, read_object
from .yaml_text import yaml_documents

_plain = msgspec.json.Decoder()


def read_any(text: bytes, *, name: str, bases: Mapping[str, Profile]) -> Profile:
    """Read a profile of OCI, Docker or Podman, or a `SeccompProfile` of Kubernetes, in JSON or YAML.

    The form follows the suffix of `name`; without a known one, text that begins with a brace or a bracket is
    JSON. `bases` are the profiles that a `baseProfileName` may ask for. A YAML stream may hold other objects
    beside one `SeccompProfile`. Raises ProfileError with the path in the document, as `parse_profile` does.
    """
    if _is_json(text, name):
        document = decode_json(text, _plain, "$")
        return read_object(document, bases) if _is_object(document) else parse_profile(text)
    document = _only(yaml_documents(text, name), name)
    return read_object(document, bases) if _is_object(document) else _convert(document)


def read_named(text: bytes, *, name: str, bases: Mapping[str, Profile]) -> Profile:
    """`read_any`, with `name` in the place of `$` in the paths of errors."""
    try:
        return read_any(text, name=name, bases=bases)
    except ProfileError as error:
        place = error.path if error.path.startswith(name) else name + error.path.removeprefix("$")
        said = error.message.removeprefix(f"{error.path}: ")
        raise ProfileError(said, path=place, need=error.need, have=error.have, hint=error.hint) from error


def _is_json(text: bytes, name: str) -> bool:
    if name.endswith((".json", ".yaml", ".yml")):
        return name.endswith(".json")
    return text.lstrip()[:1] in (b"{", b"[")


def _is_object(document: object) -> bool:
    """Whether it says to be an object of Kubernetes, by the keys that no profile has."""
    return isinstance(document, dict) and ("apiVersion" in document or "kind" in document)


def _only(documents: list[object], name: str) -> object:
    if len(documents) == 1:
        return documents[0]
    if not documents:
        raise ProfileError(f"{name} is empty", need="a profile")
    found = [cast("dict[str, Any]", one) for one in documents if _is_object(one)]
    found = [one for one in found if one.get("kind") == KIND]
    if len(found) != 1:
        raise ProfileError(
            f"{name} holds {len(documents)} documents",
            need=f"one profile, or one {KIND} among other objects",
            have=", ".join(map(_name_of, found)) or f"no {KIND}",
            hint="put each profile in a file of its own",
        )
    return found[0]


def _name_of(document: dict[str, Any]) -> str:
    metadata = document.get("metadata")
    named = cast("dict[str, Any]", metadata).get("name") if isinstance(metadata, dict) else None
    return f"{KIND} {named}" if isinstance(named, str) else f"a {KIND} without a name"


def _convert(document: object) -> Profile:
    try:
        return msgspec.convert(document, Profile)
    except msgspec.ValidationError as fault:
        raise explain(str(fault), "$") from fault
