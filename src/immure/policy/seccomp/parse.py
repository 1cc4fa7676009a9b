"""JSON text → `Profile`, with errors that name the place in the document and the nearest known word."""

from __future__ import annotations

import re

import msgspec

from immure.errors import ProfileError

from .actions import Action, errno_names
from .profile import Architecture, ArchMap, Arg, Flag, Operator, Profile, Rule, Scope

_decoder = msgspec.json.Decoder(Profile)

_WORDS = [member.value for kind in (Action, Operator, Architecture, Flag) for member in kind]

# Which model stands at a path, by how the path ends; what matches nothing is the profile itself.
_MODELS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    (r"\.args\[\d+\]$", Arg),
    (r"\.(includes|excludes)$", Scope),
    (r"\.archMap\[\d+\]$", ArchMap),
    (r"\.syscalls\[\d+\]$", Rule),
)


def parse_profile(data: bytes | str, *, source: str = "$") -> Profile:
    """Read a profile from JSON.

    `source` takes the place of `$` in the paths of errors. Raises ProfileError: for what isn't JSON, an
    unknown key, action, operator, architecture or flag (with the nearest known one), a value out of range, a
    missing field. Names of system calls are not checked here: see `check_profile`.
    """
    text = _to_bytes(data, source)
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as fault:
        raise _explain(str(fault), source) from fault
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ProfileError(_locate(str(fault), text), path=source, need="a JSON object") from fault
    except RecursionError as fault:
        raise ProfileError("nested too deeply", path=source, need="a JSON object") from fault


def _to_bytes(data: bytes | str, source: str) -> bytes:
    try:
        return data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as fault:
        raise ProfileError("not valid Unicode", path=source, need="a JSON object") from fault


def _explain(fault: str, source: str) -> ProfileError:
    message, _, path = fault.rpartition(" - at `")
    if not message:
        message, path = fault, "$"
    path = path.removesuffix("`")
    quoted = re.search(r"unknown field `(.*)`|enum value '(.*)'|unknown errno '(.*)'", message)
    key, word, error = quoted.groups() if quoted else (None, None, None)
    if key is not None:
        message, hint = f"unknown key `{key}`", _nearest(key, _keys_at(path))
    elif word is not None:
        message, hint = f"unknown name {word!r}", _nearest(word, _WORDS)
    else:
        hint = _nearest(error, errno_names()) if error is not None else None
    lowered = re.sub(r"^[A-Z](?=[a-z])", lambda first: first[0].lower(), message)
    return ProfileError(lowered, path=source + path[1:], hint=hint)


def _keys_at(path: str) -> list[str]:
    model = next((model for ending, model in _MODELS if re.search(ending, path)), Profile)
    return [field.encode_name for field in msgspec.structs.fields(model)]


def _nearest(word: str, known: list[str]) -> str | None:
    # Only the way to an error needs it, and it is slow to import.
    from difflib import get_close_matches

    folded = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return f"did you mean `{folded[near[0]]}`?" if near else None


def _locate(fault: str, text: bytes) -> str:
    found = re.search(r"^(.*) \(byte (\d+)\)$", fault)
    if found is None:
        return f"not JSON: {fault}"
    before = text[: int(found[2])]
    line = before.count(b"\n") + 1
    column = len(before) - before.rfind(b"\n")
    return f"not JSON at line {line}, column {column}: {found[1].removeprefix('JSON is malformed: ')}"
