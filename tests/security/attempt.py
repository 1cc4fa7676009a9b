"""What an attempt is, and the table that they stand in."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any

# A box out of processes or memory says nothing about its walls.
NEVER_A_DENIAL = frozenset({"EAGAIN", "ENOMEM", "EINTR", "ETIMEDOUT", "EMFILE", "ENFILE"})

# What a denial is called that no error tells: nothing was done or shown, or no box was made for it.
WITHOUT_ERROR = frozenset({"ABSENT", "EMPTY", "KEPT", "NO_GAIN", "REFUSED", "STRIPPED"})


class Outside(Enum):
    """Where the control runs, so that it can neither fail for want of a right nor harm the host."""

    HERE = "as the caller"
    OWN_MOUNTS = "in a mount namespace of its own"
    OWN_NETWORK = "in a network namespace of its own"
    PLAIN_USER = "as a user without privileges"


class Denied(Exception):
    """The attempt came to nothing, without an error of the kernel's."""

    def __init__(self, word: str, detail: str = "") -> None:
        super().__init__(detail)
        self.word = word


@dataclass(frozen=True)
class Attempt:
    """One try, what may deny it, the scene it needs, and how its control runs."""

    name: str
    function: Callable[..., object]
    denied: frozenset[str]
    scenes: tuple[str, ...]
    arguments: Mapping[str, Any]
    outside: Outside
    needs_root: bool

    def __str__(self) -> str:
        return self.name


ATTEMPTS: dict[str, Attempt] = {}


def attempt(
    denied: str,
    *,
    scenes: str = "",
    each_scene: str = "",
    cases: Mapping[str, Mapping[str, Any]] | None = None,
    outside: Outside = Outside.HERE,
    needs_root: bool = False,
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Put a function into the table, once for each of `each_scene` and each of `cases`.

    `denied` names the errors that count as a denial. `needs_root` says that the control needs root; the attempt
    itself never does.
    """
    words = frozenset(denied.split())
    unknown = {word for word in words - WITHOUT_ERROR if not hasattr(errno, word)}
    if unknown or words & NEVER_A_DENIAL:
        raise ValueError(f"not a denial: {sorted(unknown | words & NEVER_A_DENIAL)}")

    def register(function: Callable[..., object]) -> Callable[..., object]:
        subject = function.__module__.rpartition(".")[2]
        for scene, (case, arguments) in itertools.product(each_scene.split() or [""], (cases or {"": {}}).items()):
            name = "-".join(filter(None, [f"{subject}.{function.__name__}", scene, case]))
            if name in ATTEMPTS:
                raise ValueError(f"two attempts are called {name}")
            ATTEMPTS[name] = Attempt(
                name,
                function,
                words,
                (*scenes.split(), *filter(None, [scene])),
                arguments,
                outside,
                needs_root,
            )
        return function

    return register


@contextmanager
def granted_by(*names: str) -> Iterator[None]:
    """Take these errors as success: the kernel gives them only once the right to do it has been checked."""
    try:
        yield
    except OSError as error:
        if errno.errorcode.get(error.errno or 0) not in names:
            raise
