"""YAML text → the documents in it, as plain objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import msgspec
import yaml

from immure.errors import ProfileError, SpecError
from immure.spec.yaml_traps import refuse_traps

# A profile has six levels. What builds the objects is recursive and has no limit of its own.
_MAX_DEPTH = 100


def yaml_documents(text: bytes, name: str) -> list[object]:
    """Every document of the text that isn't empty.

    Raises ProfileError for what isn't UTF-8 or YAML, a key that is there twice, too many levels. `name` is
    what errors call the text.
    """
    try:
        characters = text.decode()
        found = [_document(part) for part in _parts(characters)]
    except UnicodeDecodeError as fault:
        line = text.count(b"\n", 0, fault.start) + 1
        raise _unreadable(name, f"line {line} is not UTF-8") from fault
    except (yaml.YAMLError, msgspec.DecodeError) as fault:
        raise _unreadable(name, _place(fault)) from fault
    except RecursionError as fault:
        raise _unreadable(name, "nested too deeply") from fault
    except SpecError as fault:
        raise ProfileError(fault.message.removeprefix("$: "), need=fault.need, have=fault.have) from fault
    return [document for document in found if document is not None]


def _document(text: str) -> object:
    document = msgspec.yaml.decode(text)
    refuse_traps(text.encode())
    return document


def _parts(text: str) -> Iterator[str]:
    """The text of each document, moved to its own lines so that errors name the file's."""
    begin, depth = 0, 0
    for event in cast("Any", yaml).parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.DocumentEndEvent):
            end: int = cast("Any", event).end_mark.index
            yield "\n" * text.count("\n", 0, begin) + text[begin:end]
            begin = end
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise RecursionError
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _unreadable(name: str, why: str) -> ProfileError:
    return ProfileError(f"{name} can't be read: {why}", need="YAML or JSON")


def _place(fault: Exception) -> str:
    """The parser's words on one line."""
    return " ".join(str(fault).split())
