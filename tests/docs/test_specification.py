"""SPECIFICATION.md: each promise names what shows it, and that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from documents import ROOT

_PROMISE = re.compile(r"^(\d+)\. (.*?)(?=^\d+\. |^#|\Z)", re.MULTILINE | re.DOTALL)
_SHOWN = re.compile(r"^ +- `([\w./-]+)`(?:: (.*))?$", re.MULTILINE)


def promises() -> list[tuple[int, str]]:
    path = ROOT / "SPECIFICATION.md"
    text = path.read_text() if path.is_file() else ""
    return [(int(number), body) for number, body in _PROMISE.findall(text)]


def test_promises_are_numbered_in_order() -> None:
    numbers = [number for number, _ in promises()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 60


@pytest.mark.parametrize(("number", "body"), promises(), ids=lambda value: str(value) if isinstance(value, int) else "")
def test_what_shows_a_promise_exists(number: int, body: str) -> None:
    shown = _SHOWN.findall(body)
    assert shown, f"promise {number} names nothing that shows it"
    for path, listed in shown:
        assert (ROOT / path).is_file(), path
        wanted = set(re.findall(r"`(\w+)`", listed))
        assert wanted <= _functions(ROOT / path), path


def _functions(path: Path) -> set[str]:
    """Tests of a Python file, or attempts."""
    if path.suffix != ".py":
        return set()
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
