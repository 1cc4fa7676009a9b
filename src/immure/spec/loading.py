"""Text to spec: YAML, TOML, JSON and keywords. Unknown keys are refused with the nearest known one."""

from __future__ import annotations

import difflib
import enum
import re
import types
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from immure.errors import SpecError
from immure.spec.json_keys import refuse_repeated_keys
from immure.spec.models import IMAGE_FORM, Document
from immure.spec.yaml_traps import refuse_traps

T = TypeVar("T")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_WRONG_KEY = re.compile(r"invalid enum value '([^']*)'", re.IGNORECASE)
_PATH = re.compile(r" - at (?:`key` in )?`([^`]*)`$")


def load_document(text: bytes, *, name: str) -> Document:
    """A document of `apiVersion: immure.dev/v1`; the form follows the name's suffix, YAML where it has none.

    Raises SpecError with the path in the document.
    """
    try:
        if name.endswith(".json"):
            raw: Any = msgspec.json.decode(text)
            refuse_repeated_keys(text)
        elif name.endswith(".toml"):
            raw = msgspec.toml.decode(text)
        else:
            raw = msgspec.yaml.decode(text)
            refuse_traps(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{name} can't be read: {error}", need="YAML, TOML or JSON") from error
    if not isinstance(raw, dict):
        raise SpecError(f"{name} holds no sandbox", need="apiVersion, kind and spec", have=type(raw).__name__)
    return convert(cast("dict[str, Any]", raw), Document)


def convert(raw: object, model: type[T], *, path: str = "$") -> T:
    """`msgspec.convert` with our errors: the path, what was needed, what was there, the nearest known key."""
    try:
        return msgspec.convert(raw, model, strict=True)
    except msgspec.ValidationError as error:
        raise _explain(str(error), raw, model, path) from error
    except UnicodeEncodeError as error:
        raise SpecError("a string is no text", path=path, need="UTF-8", have=ascii(error.object)) from error


def _explain(message: str, raw: object, model: type, root: str) -> SpecError:
    found = _PATH.search(message)
    inner = found.group(1) if found else "$"
    text = message[: found.start()] if found else message
    # msgspec does not say which entry of a table it was.
    entry = _bad_entry(raw, model, inner, root) if "[...]" in inner else None
    if entry is not None:
        return entry
    path = root + inner.removeprefix("$")
    unknown = _UNKNOWN.search(text)
    if unknown is not None:
        return _unknown(unknown.group(1), _keys_at(model, inner), path)
    wrong = _WRONG_KEY.search(text) if found and "`key` in" in found.group(0) else None
    if wrong is not None:
        return _unknown(wrong.group(1), _literals_at(model, inner), path)
    text = text[:1].lower() + text[1:].rstrip(".")
    have = _value_at(raw, inner)
    if repr(IMAGE_FORM) in text:
        return _no_image(str(have), path)
    known = _choices(_type_at(model, inner)) if text.startswith("invalid enum value") else []
    near = difflib.get_close_matches(str(have), known, n=1)
    return SpecError(
        "no such value" if known else text,
        path=path,
        need="one of " + ", ".join(known) if known else None,
        have=None if have is _ABSENT else _short(have),
        hint=f"did you mean {near[0]!r}?" if near else None,
    )


def _no_image(name: str, path: str) -> SpecError:
    return SpecError(
        "no such image",
        path=path,
        need="host, or the path of a folder with a root file system",
        have=repr(name),
        hint=f"for a folder of that name write ./{name}" if name else None,
    )


def _bad_entry(raw: object, model: Any, inner: str, root: str) -> SpecError | None:
    before = inner.partition("[...]")[0]
    table = _value_at(raw, before)
    kinds = get_args(_type_at(model, before))
    if not isinstance(table, dict) or len(kinds) != 2:
        return None
    for key, value in cast("dict[object, object]", table).items():
        try:
            msgspec.convert(value, kinds[1], strict=True)
        except msgspec.ValidationError as error:
            return _explain(str(error), value, kinds[1], f"{root}{before.removeprefix('$')}.{key}")
    return None


def _unknown(name: str, known: list[str], path: str) -> SpecError:
    near = difflib.get_close_matches(name, known, n=1)
    return SpecError(
        f"unknown key {name!r}",
        path=path,
        need="one of " + ", ".join(known) if known else None,
        hint=f"did you mean {near[0]!r}?" if near else None,
    )


_ABSENT = object()
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def _steps(path: str) -> list[str]:
    return [name or index for name, index in _STEP.findall(path)]


def _value_at(raw: object, path: str) -> object:
    for step in _steps(path):
        if isinstance(raw, dict):
            raw = cast("dict[str, object]", raw).get(step, _ABSENT)
        elif isinstance(raw, list | tuple) and step.isdigit():
            items = cast("list[object]", raw)
            raw = items[int(step)] if int(step) < len(items) else _ABSENT
        else:
            return _ABSENT
    return raw


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _type_at(model: Any, path: str) -> Any:
    """The type of what `path` leads to."""
    for step in _steps(path):
        model = _strip_optional(model)
        if isinstance(model, type) and issubclass(model, msgspec.Struct):
            names = {field.encode_name: field.name for field in msgspec.structs.fields(model)}
            model = get_type_hints(model).get(names.get(step, ""), None)
        else:
            arguments = [one for one in get_args(model) if one is not Ellipsis]
            model = arguments[-1] if arguments else None
    return _strip_optional(model)


def _keys_at(model: Any, path: str) -> list[str]:
    """The keys of the model that `path` leads to."""
    model = _type_at(model, path)
    if isinstance(model, type) and issubclass(model, msgspec.Struct):
        return [field.encode_name for field in msgspec.structs.fields(model)]
    return []


def _literals_at(model: Any, path: str) -> list[str]:
    """The names that the keys of the table at `path` may have."""
    return _choices((get_args(_type_at(model, path)) or (None,))[0])


def _choices(model: Any) -> list[str]:
    """The values that a Literal or an enumeration has."""
    if isinstance(model, type) and issubclass(model, enum.Enum):
        return [str(one.value) for one in model]
    return [str(one) for one in get_args(model)] if get_origin(model) is Literal else []


def _strip_optional(model: Any) -> Any:
    if get_origin(model) in (Union, types.UnionType):
        structs = [one for one in get_args(model) if isinstance(one, type) and issubclass(one, msgspec.Struct)]
        return structs[0] if structs else model
    return model
