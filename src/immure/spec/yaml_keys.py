"""Keys that a YAML document has twice. The parser would take the last one without a word."""

from __future__ import annotations

from typing import Any, cast

import yaml

from immure.errors import SpecError


def refuse_repeated_keys(text: bytes) -> None:
    """Raises SpecError with the lines of both. `text` is a document that parses."""
    compose = cast("Any", yaml).compose
    waiting: list[Any] = [compose(text, Loader=yaml.CSafeLoader)]
    known: set[int] = set()
    while waiting:
        node = waiting.pop()
        # An alias is the node that it stands for, which may hold itself.
        if id(node) in known:
            continue
        known.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += cast("Any", node).value
        elif isinstance(node, yaml.MappingNode):
            pairs: list[tuple[Any, Any]] = cast("Any", node).value
            _check([key for key, _ in pairs])
            waiting += [value for _, value in pairs]


def _check(keys: list[Any]) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            continue
        node = cast("Any", key)
        name, line = (node.tag, node.value), node.start_mark.line + 1
        if name in lines:
            raise SpecError(
                f"the key {node.value!r} is there twice", need="each key once", have=f"lines {lines[name]} and {line}"
            )
        lines[name] = line
