"""What is compared, and the worker process in which each contender lives.

Every worker, in C or in Python, takes the same orders, one a line:

    time N     do it N times; answer N lines: total ns, then PHASE=ns ...
    rate MS    do it as often as fits into MS milliseconds; answer one line: count, ns
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bench.filters import Filters

ROOT = Path(__file__).parent.parent
COMMAND = "/bin/true"


@dataclass(frozen=True)
class Contender:
    name: str
    title: str
    command: str  # what is timed, as one would type it
    worker: tuple[str, ...]
    level: str | None = None  # awarded by us; None for what we don't award
    rated: bool = False  # also measured as boxes/s, two workers at once
    apart: bool = False  # measured after the others, and less often
    in_a_row: int = 1  # samples that are taken at each turn


@dataclass(frozen=True)
class Sample:
    total_ns: int
    phases: dict[str, int]


class WorkerFailed(Exception):
    """A contender can't be measured here; says which and why."""


def count(text: str) -> int:
    """How many samples an argument asks for."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text}: a number from 1 on is needed")
    return int(text)


def in_a_row(make: Callable[[Filters], Contender], filters: Filters) -> Contender:
    """The same, ten at each turn: what is hot of it is its own, as with one after another."""
    one = make(filters)
    return replace(one, name=f"{one.name}-row", title=f"{one.title}, of ten in a row", in_a_row=10)


def python_worker(subject: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "bench.worker", subject, *arguments)


class Worker:
    """One running worker process. Closing its stdin ends it."""

    def __init__(self, contender: Contender) -> None:
        self.contender = contender
        # A file and not a pipe: nobody reads it while the worker runs.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            contender.worker,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            cwd=ROOT,
            bufsize=0,
        )
        assert self._process.stdin and self._process.stdout
        self._orders, self._answers = self._process.stdin, self._process.stdout

    def time(self, count: int) -> list[Sample]:
        self._send(f"time {count}")
        return [self._sample() for _ in range(count)]

    def start_rate(self, ms: int) -> None:
        self._send(f"rate {ms}")

    def finish_rate(self) -> float:
        """Boxes per second of the rate that was started."""
        count, ns = map(int, self._line().split())
        return count * 1e9 / ns

    def close(self) -> None:
        self._orders.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._stderr.close()

    def _sample(self) -> Sample:
        total, *phases = self._line().split()
        pairs = (phase.rsplit("=", 1) for phase in phases)
        return Sample(int(total), {name: int(ns) for name, ns in pairs})

    def _send(self, order: str) -> None:
        try:
            self._orders.write(f"{order}\n".encode())
        except BrokenPipeError:
            raise self._failure() from None

    def _line(self) -> str:
        line = self._answers.readline()
        if not line:
            raise self._failure()
        return line.decode()

    def _failure(self) -> WorkerFailed:
        status = self._process.wait()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()
        return WorkerFailed(f"{self.contender.name}: {said[-1] if said else f'status {status}'}")
