"""`import immure`: what is there, and how little it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import immure
from immure import errors

# Each of these costs more than the whole of `import immure`.
HEAVY = {
    "argparse",
    "asyncio",
    "dataclasses",
    "enum",
    "json",
    "msgspec",
    "re",
    "rich",
    "socket",
    "subprocess",
    "typing",
}


CHILD = """
import sys
before = set(sys.modules)
{code}
loaded = sorted(set(sys.modules) - before)
import json
print(json.dumps(loaded))
"""


def modules_after(code: str) -> set[str]:
    """What a fresh interpreter has imported by then. Without `site`, whose .pth files import what they like."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = subprocess.run(
        [sys.executable, "-S", "-c", CHILD.format(code=code)], env=environment, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    return set(json.loads(child.stdout))


@pytest.mark.parametrize("name", immure.__all__)
def test_what_is_promised_is_there(name: str) -> None:
    assert getattr(immure, name) is not None
    assert name in dir(immure)


def test_the_names_are_sorted_and_once() -> None:
    assert immure.__all__ == sorted(set(immure.__all__), key=lambda name: (not name.isupper(), name))


def test_nothing_else_is_handed_out() -> None:
    assert set(immure._HOMES) == set(immure.__all__)
    namespace: dict[str, object] = {}
    exec("from immure import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(immure.__all__)


def test_a_type_checker_sees_the_same_names() -> None:
    import ast
    from pathlib import Path

    (block,) = [
        node
        for node in ast.parse(Path(immure.__file__ or "").read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(immure.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Sandbxo'"):
        _ = immure.Sandbxo  # type: ignore[attr-defined]


def test_every_error_is_public() -> None:
    tree = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.ImmureError)}
    assert {one.__name__ for one in tree} <= set(immure.__all__)
    for one in tree:
        assert getattr(immure, one.__name__) is one


def test_to_import_it_imports_nothing_else() -> None:
    assert modules_after("import immure") <= {"immure", "__future__"}


@pytest.mark.parametrize("name", ["ImmureError", "LevelNotReached"])
def test_an_error_costs_its_module_alone(name: str) -> None:
    loaded = modules_after(f"from immure import {name}")
    assert "immure.errors" in loaded
    assert not loaded & HEAVY


def test_the_watch_would_see_something_heavy() -> None:
    assert {"msgspec", "typing"} <= modules_after("from immure import SandboxSpec")
