"""`python -m bench.idle [N]`: PSS of boxes in which nothing but a `sleep` runs, with all that holds them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep

from bench import peers
from bench.filters import write_filters
from bench.memory import pss_kib
from bench.report import describe_host
from bench.rivals import IDLE, RIVALS, absent, started
from immure import Sandbox
from immure.host.tree import below

COUNT, STARTING_S = 20, 30.0


def main() -> int:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    kinds: dict[str, Callable[[], AbstractContextManager[int]]] = {
        "immure": _immure,
        "bwrap": partial(started, _bwrap),
        **{rival.name: rival.idle for rival in RIVALS if rival.idle is not None and rival.found()},
    }
    each = {name: round(_measured(kind, count) / 1024 / count, 3) for name, kind in kinds.items()}
    found = {"host": describe_host(), "boxes": count, "pss_mib_each": each, "absent": absent()}
    print(json.dumps(found, indent=1, default=str))
    return 0


def _measured(kind: Callable[[], AbstractContextManager[int]], count: int) -> int:
    """KiB of so many boxes at once."""
    with ExitStack() as stack:
        firsts = [stack.enter_context(kind()) for _ in range(count)]
        trees = [_settled(first) for first in firsts]
        # Some are held by one process for all.
        return pss_kib({pid for tree in trees for pid in tree})


def _settled(first: int) -> list[int]:
    """All processes of a box, once the command runs."""
    until = monotonic() + STARTING_S
    while True:
        tree = [first, *below(first)]
        if any(_command(pid) == "sleep" for pid in tree):
            return tree
        if monotonic() > until:
            raise RuntimeError(f"nothing sleeps below process {first}")
        sleep(0.01)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@contextmanager
def _immure() -> Iterator[int]:
    with Sandbox() as box, box.start(list(IDLE)):
        yield _parent(box._box.pid)


def _parent(pid: int) -> int:
    """The spawner of a box, which holds all of them."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def _bwrap(command: list[str]) -> Iterator[list[str]]:
    # The shell opens the filter for it.
    argv = peers.bwrap_argv(9, command)
    yield ["sh", "-c", f'exec "$@" 9<{write_filters().program}', "sh", *argv]


if __name__ == "__main__":
    sys.exit(main())
