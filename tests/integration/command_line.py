"""Runs the command line as its users do: as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

IMMURE = [sys.executable, "-m", "immure"]

Word = str | bytes | os.PathLike[str]


class CommandLine:
    """`immure` with a cache of its own."""

    def __init__(self, cache: Path) -> None:
        self.env = {**os.environ, "XDG_CACHE_HOME": str(cache)}
        self.cache = cache / "immure"

    def words(self, *words: Word) -> list[Word]:
        return [*IMMURE, *words]

    def run(self, *words: Word, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        """`immure run` with these words, to its end. Its output is captured unless `keywords` say otherwise."""
        return self.carry_out("run", *words, **keywords)

    def learn(self, *words: Word, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        """`immure policy learn` likewise."""
        return self.carry_out("policy", "learn", *words, **keywords)

    def carry_out(self, *words: Word, **keywords: Any) -> subprocess.CompletedProcess[bytes]:
        """Any command, to its end."""
        keywords.setdefault("stdin", subprocess.DEVNULL if "input" not in keywords else None)
        if keywords["stdin"] is None:
            del keywords["stdin"]
        for stream in ("stdout", "stderr"):
            keywords.setdefault(stream, subprocess.PIPE)
        env = {**self.env, **keywords.pop("env", {})}
        return subprocess.run(self.words(*words), env=env, timeout=60, check=False, **keywords)

    def start(self, *words: Word, **keywords: Any) -> subprocess.Popen[bytes]:
        """The same, not waited for."""
        for stream in ("stdout", "stderr"):
            keywords.setdefault(stream, subprocess.PIPE)
        keywords.setdefault("stdin", subprocess.DEVNULL)
        env = {**self.env, **keywords.pop("env", {})}
        return subprocess.Popen(self.words("run", *words), env=env, **keywords)


def shell(script: str, *arguments: str) -> Sequence[str]:
    """A command that carries a script out."""
    return ("sh", "-c", script, "sh", *arguments)


def python(program: str, *arguments: str) -> Sequence[str]:
    """A command that runs a program in the image's Python."""
    return ("/usr/bin/python3", "-I", "-S", "-c", program, *arguments)
