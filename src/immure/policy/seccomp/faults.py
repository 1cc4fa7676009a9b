"""What the decoder says of a bad document → `ProfileError` with the path and the nearest known word."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from immure.errors import ProfileError

from .actions import Action, errno_names
from .profile import Architecture, ArchMap, Arg, Flag, Operator, Profile, Rule, Scope

Models = Sequence[tuple[str, type[msgspec.Struct]]]
"""Which model stands at a path, by how the path ends. The first that matches counts."""

PROFILE_MODELS: Models = (
    (r"\.args\[\d+\]$", Arg),
    (r"\.(includes|excludes)$", Scope),
    (r"\.archMap\[\d+\]$", ArchMap),
    (r"\.syscalls\[\d+\]$", Rule),
    (r"", Profile),
)

_PATH = re.compile(r" - at (?:`key` in )?`([^`]*)`$")
_WORDS = [member.value for kind in (Action, Operator, Architecture, Flag) for member in kind]


def explain(fault: str, source: str, models: Models = PROFILE_MODELS) -> ProfileError:
    """The error for msgspec's message `fault`. `source` takes the place of `$` in its path."""
    found = _PATH.search(fault)
    message, path = (fault[: found.start()], found[1]) if found else (fault, "$")
    quoted = re.search(r"unknown field `(.*)`|enum value '(.*)'|unknown errno '(.*)'", message)
    key, word, error = quoted.groups() if quoted else (None, None, None)
    if key is not None:
        message, hint = f"unknown key `{key}`", nearest(key, _keys_at(path, models))
    elif word is not None:
        message, hint = f"unknown name {word!r}", nearest(word, _WORDS)
    else:
        hint = nearest(error, errno_names()) if error is not None else None
    lowered = re.sub(r"^[A-Z](?=[a-z])", lambda first: first[0].lower(), message)
    return ProfileError(lowered, path=source + path[1:], hint=hint)


def nearest(word: str, known: Sequence[str]) -> str | None:
    """A hint with the word of `known` that is most like `word`, or None if none is like it."""
    # Only the way to an error needs it, and it is slow to import.
    from difflib import get_close_matches

    folded = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f"did you mean `{folded[near[0]]}`?" if near else None


def locate(fault: str, text: bytes) -> str:
    """msgspec's message on text that isn't JSON, with line and column in place of the byte."""
    found = re.search(r"^(.*) \(byte (\d+)\)$", fault)
    if found is None:
        return f"not JSON: {fault}"
    before = text[: int(found[2])]
    line = before.count(b"\n") + 1
    column = len(before) - before.rfind(b"\n")
    return f"not JSON at line {line}, column {column}: {found[1].removeprefix('JSON is malformed: ')}"


def _keys_at(path: str, models: Models) -> list[str]:
    model = next(model for ending, model in models if re.search(ending, path))
    return [field.encode_name for field in msgspec.structs.fields(model)]
