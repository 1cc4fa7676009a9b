"""JSON text → `Profile`, with errors that name the place in the document and the nearest known word."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from immure.errors import ProfileError, SpecError
from immure.spec.json_keys import refuse_repeated_keys

from .faults import explain, locate
from .profile import Profile

T = TypeVar("T")

_decoder = msgspec.json.Decoder(Profile)


def parse_profile(data: bytes | str, *, source: str = "$") -> Profile:
    """Read a profile from JSON.

    `source` takes the place of `$` in the paths of errors. Raises ProfileError: for what isn't JSON, a key
    that is there twice, an unknown key, action, operator, architecture or flag (with the nearest known one), a
    value out of range, a missing field. Names of system calls are not checked here: see `check_profile`.
    """
    return decode_json(data, _decoder, source)


def decode_json(data: bytes | str, decoder: msgspec.json.Decoder[T], source: str) -> T:
    """What `decoder` makes of `data`. Raises ProfileError as `parse_profile` does."""
    text = _to_bytes(data, source)
    try:
        decoded = decoder.decode(text)
    except msgspec.ValidationError as fault:
        raise explain(str(fault), source) from fault
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ProfileError(locate(str(fault), text), path=source, need="a JSON object") from fault
    except RecursionError as fault:
        raise ProfileError("nested too deeply", path=source, need="a JSON object") from fault
    try:
        refuse_repeated_keys(text, source)
    except SpecError as fault:
        said = fault.message.removeprefix(f"{fault.path}: ")
        raise ProfileError(said, path=fault.path, need=fault.need, have=fault.have) from fault
    return decoded


def _to_bytes(data: bytes | str, source: str) -> bytes:
    try:
        return data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as fault:
        raise ProfileError("not valid Unicode", path=source, need="a JSON object") from fault
