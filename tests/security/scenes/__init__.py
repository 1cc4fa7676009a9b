"""What an attempt is made on: files, sockets, processes and other objects that the test makes and takes away.

A scene is a generator over a `Stage`: it sets up, yields, and cleans up. The same attempt gets other arguments in
the box than outside where the same thing has another name there.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from security.attempt import Attempt

SETS = ("files", "ipc", "machine", "network", "processes")


@dataclass
class Stage:
    """All that the scenes of one attempt set up; `folder` is the test's own."""

    folder: Path
    inside: dict[str, Any] = field(default_factory=dict)
    outside: dict[str, Any] = field(default_factory=dict)
    mounts: list[tuple[str, str, str]] = field(default_factory=list)
    stdin: int | None = None
    redirect: str = ""
    """What the shell moves before the program starts, in the box too."""
    prelude: list[str] = field(default_factory=list)
    """Shell commands that the control's own namespaces need."""
    checks: list[Callable[[], None]] = field(default_factory=list)
    """What must hold on the host once the box is gone."""

    def command(self, root: str, attempt: Attempt, arguments: Mapping[str, Any]) -> list[str]:
        """The program of an attempt, as a command; `root` is where the package `security` lies."""
        given = json.dumps({**arguments, **attempt.arguments})
        program = ["/usr/bin/python3", "-I", "-B", f"{root}/security/inside.py", attempt.name, given]
        return ["/bin/sh", "-c", f'exec "$@" {self.redirect}', "sh", *program] if self.redirect else program

    def give(self, **arguments: Any) -> None:
        """Arguments that are the same in the box and outside."""
        self.inside.update(arguments)
        self.outside.update(arguments)

    def give_each(self, name: str, *, inside: Any, outside: Any) -> None:
        self.inside[name] = inside
        self.outside[name] = outside

    def mount(self, name: str, source: Path, target: str, access: str) -> None:
        """Mount a folder, and give its path as the argument `name`."""
        self.mounts.append((str(source), target, access))
        self.give_each(name, inside=target, outside=str(source))

    def new_folder(self, name: str) -> Path:
        """An own folder of that name; the same one for every stage in the folder of a test."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


Scene = Callable[[Stage], Iterator[None]]

SCENES: dict[str, Scene] = {}


def scene(function: Scene) -> Scene:
    SCENES[function.__name__] = function
    return function


@contextmanager
def staged(names: Iterable[str], folder: Path) -> Iterator[Stage]:
    """Set up the scenes in this order; the later may use what the earlier gave."""
    for module in SETS:
        importlib.import_module(f"security.scenes.{module}")
    stage = Stage(folder)
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(contextmanager(SCENES[name])(stage))
        yield stage
