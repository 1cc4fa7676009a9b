"""The documents as tests see them: their code blocks, links and headings."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
TOP = ("README.md", "SECURITY.md", "SPECIFICATION.md", "CONTRIBUTING.md")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block of a document."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def names() -> list[str]:
    """Every document of the project, where there is one: copies of the tests may lie without them."""
    pages = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
    return [name for name in (*TOP, *pages) if (ROOT / name).is_file()]


def blocks(*documents: str, languages: tuple[str, ...]) -> list[Block]:
    """The blocks of some languages, in order."""
    return [block for name in documents for block in _blocks(name) if block.language in languages]


def _blocks(name: str) -> Iterator[Block]:
    path = ROOT / name
    text = path.read_text() if path.is_file() else ""
    for found in _FENCE.finditer(text):
        yield Block(name, text.count("\n", 0, found.start()) + 1, found[1], found[2])


def links(name: str) -> list[str]:
    """Targets of links that stay within the project."""
    text = _CODE.sub("", _FENCE.sub("", (ROOT / name).read_text()))
    return [target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def anchors(path: Path) -> set[str]:
    """What `#…` can lead to, as GitHub makes it of headings."""
    text = _FENCE.sub("", path.read_text())
    return {_anchor(heading) for heading in _HEADING.findall(text)}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def environment(home: Path) -> dict[str, str]:
    """A shell's environment with this interpreter's scripts on PATH, and a home of its own, with its kept boxes."""
    own = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    return {
        **own,
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home),
        "LANG": "C.UTF-8",
    }
