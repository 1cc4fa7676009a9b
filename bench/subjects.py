"""Ourselves: a fresh box, a command in a ready box, the whole command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.contender import COMMAND, Contender, python_worker
from bench.filters import Filters
from bench.peers import spawner

IMMURE = str(Path(sys.executable).with_name("immure"))
LEVEL = "L2"
PAUSE_S = 0.01


def fresh(_: Filters) -> Contender:
    return Contender(
        "immure",
        "a fresh box, warm spawner",
        f'immure.run(["{COMMAND}"])',
        python_worker("immure"),
        level=LEVEL,
        rated=True,
    )


def bare(_: Filters) -> Contender:
    return Contender(
        "immure-l1",
        "a fresh box without namespaces",
        f'immure.run(["{COMMAND}"], level="L1", namespaces="none")',
        python_worker("immure-l1"),
        level="L1",
    )


def ready(_: Filters) -> Contender:
    return Contender(
        "immure-exec",
        "a command in a ready box",
        f'box.exec(["{COMMAND}"])',
        python_worker("immure-exec"),
        level=LEVEL,
    )


def pooled(_: Filters) -> Contender:
    return Contender(
        "immure-pool",
        "a box of a pool, and a command in it",
        f'pool.claim().exec(["{COMMAND}"])',
        python_worker("immure-pool"),
        level=LEVEL,
    )


def cli(_: Filters) -> Contender:
    return Contender(
        "immure-cli",
        "the whole command line",
        f"immure run -- {COMMAND}",
        python_worker("immure-cli"),
        level=LEVEL,
    )


class Fresh:
    """A fresh box, and then a pause in which the spawner begins the next one, so that no other sample is hit by that.

    As with everything that is made ahead it is no part of the time; boxes per second have it all.
    """

    def __init__(self) -> None:
        from immure import run

        self._run = run

    def __call__(self) -> Mapping[str, int]:
        return successful(self._run([COMMAND], level=LEVEL))

    def settle(self) -> None:
        time.sleep(PAUSE_S)


@contextmanager
def fresh_subject() -> Iterator[Callable[[], Mapping[str, int]]]:
    yield Fresh()


@contextmanager
def bare_subject() -> Iterator[Callable[[], Mapping[str, int]]]:
    from immure import run

    def once() -> Mapping[str, int]:
        return successful(run([COMMAND], level="L1", namespaces="none"))

    yield once


@contextmanager
def ready_subject() -> Iterator[Callable[[], Mapping[str, int]]]:
    from immure import Sandbox

    with Sandbox(level=LEVEL) as box:
        yield lambda: successful(box.exec([COMMAND]))


@contextmanager
def pooled_subject() -> Iterator[Callable[[], Mapping[str, int]]]:
    from immure import Pool

    with Pool(size=4, level=LEVEL) as pool:

        def once() -> Mapping[str, int]:
            # Closing it is no wait: the pool ends it, and makes the next.
            with pool.claim() as box:
                return successful(box.exec([COMMAND]))

        yield once


@contextmanager
def cli_subject() -> Iterator[Callable[[], None]]:
    yield spawner([IMMURE, "run", "--", COMMAND])


def successful(result) -> Mapping[str, int]:
    """How long each step took. Raises RuntimeError for a command that failed."""
    if (result.exit.kind, result.exit.code) != ("exited", 0):
        raise RuntimeError(f"{COMMAND} did not end with status 0: {result.exit}")
    return result.times_us
