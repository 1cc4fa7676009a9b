"""The box that programs must work in: level L2, every default."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import immure


def in_box(argv: Sequence[str], **options: Any) -> str:
    """What a command printed; it must end well."""
    result = immure.run(list(argv), **{"level": "L2", "limits": {"timeout_s": 120}, **options})
    assert result.level.awarded == "L2"
    assert result.ok, f"{result.exit}\n{result.stdout.text()}\n{result.stderr.text()}"
    return result.stdout.text()


def python(source: str, **options: Any) -> str:
    """What a Python program printed."""
    return in_box(["/usr/bin/python3", "-I", "-c", textwrap.dedent(source)], **options)


def shell(source: str, **options: Any) -> str:
    """What a shell script printed; it ends at the first command that fails."""
    return in_box(["/bin/bash", "-euo", "pipefail", "-c", textwrap.dedent(source)], **options)
