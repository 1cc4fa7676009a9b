"""What a YAML parser takes without a word: keys that are there twice, and aliases that unfold without end."""

from __future__ import annotations

from typing import Any, cast

import yaml

from immure.errors import SpecError

#: Values in a document once its aliases are unfolded. Nothing that people write comes near.
_MOST_VALUES = 100_000


def refuse_traps(text: bytes) -> None:
    """Raises SpecError for a key that is there twice, with the lines of both, and for aliases that make the document
    huge or hold themselves. `text` is a document that parses."""
    root = cast("Any", yaml).compose(text, Loader=yaml.CSafeLoader)
    _refuse_repeated_keys(root)
    if _values(root, {}) > _MOST_VALUES:
        raise SpecError(
            "the document is too large once its aliases are unfolded", need=f"at most {_MOST_VALUES} values"
        )


def _refuse_repeated_keys(root: Any) -> None:
    waiting: list[Any] = [root]
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
                f"the key `{node.value}` is there twice", need="each key once", have=f"lines {lines[name]} and {line}"
            )
        lines[name] = line


def _values(node: Any, known: dict[int, int]) -> int:
    """How many values a node comes to. `known` has those of nodes that were seen."""
    if id(node) in known:
        return known[id(node)]
    # A node that is met again within itself has no end.
    known[id(node)] = _MOST_VALUES + 1
    inner: list[Any] = []
    if isinstance(node, yaml.SequenceNode):
        inner = cast("Any", node).value
    elif isinstance(node, yaml.MappingNode):
        inner = [value for _, value in cast("Any", node).value]
    known[id(node)] = 1 + sum(_values(one, known) for one in inner)
    return known[id(node)]
