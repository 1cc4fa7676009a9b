"""Takes the samples: all contenders in turn, so that the machine's noise hits all alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from bench.contender import Contender, Sample, Worker, WorkerFailed

WORKERS_PER_RATE = 2
#: Of those that are measured apart, one in so many rounds.
APART = 5


@dataclass
class Measured:
    """Samples by contender; a contender that fails leaves them and enters `failed`."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def totals(self, name: str) -> list[float]:
        return [sample.total_ns for sample in self.samples.get(name, ())]

    def series(self) -> dict[str, list[float]]:
        """By name, as gates name them: times in ns, and rates as `NAME/s`."""
        times = {name: self.totals(name) for name in self.samples}
        return times | {f"{name}/s": rates for name, rates in self.rates.items()}


def measure(contenders: Sequence[Contender], *, rounds: int, warmup: int, segments: int, segment_ms: int) -> Measured:
    measured = Measured()
    _time([c for c in contenders if not c.apart], rounds, warmup, measured)
    _time([c for c in contenders if c.apart], max(1, rounds // APART), warmup, measured)
    _rate([c for c in contenders if c.rated and segments], segments, segment_ms, measured)
    return measured


def _time(contenders: Sequence[Contender], rounds: int, warmup: int, measured: Measured) -> None:
    with ExitStack() as stack:
        workers = {c.name: _start(c, stack) for c in contenders}
        in_a_row = {c.name: c.in_a_row for c in contenders}
        for number in range(warmup + rounds):

            def take(name: str, number: int = number) -> None:
                samples = workers[name].time(in_a_row[name])
                if number >= warmup:
                    measured.samples.setdefault(name, []).extend(samples)

            _each(list(workers), number, take, measured)


def _rate(contenders: Sequence[Contender], segments: int, segment_ms: int, measured: Measured) -> None:
    with ExitStack() as stack:
        pairs = {c.name: [_start(c, stack) for _ in range(WORKERS_PER_RATE)] for c in contenders}
        for number in range(1 + segments):  # the first one warms up

            def take(name: str, number: int = number) -> None:
                for worker in pairs[name]:
                    worker.start_rate(segment_ms)
                boxes_per_s = sum(worker.finish_rate() for worker in pairs[name])
                if number:
                    measured.rates.setdefault(name, []).append(boxes_per_s)

            _each(list(pairs), number, take, measured)


def _each(names: list[str], seed: int, take: Callable[[str], None], measured: Measured) -> None:
    """In a new order each round: what one leaves behind must not always hit the same one.

    A network namespace, for one, is taken apart by the kernel after its box is gone.
    """
    random.Random(seed).shuffle(names)
    for name in names:
        if name in measured.failed:
            continue
        try:
            take(name)
        except WorkerFailed as error:
            measured.failed[name] = str(error)
            measured.samples.pop(name, None)
            measured.rates.pop(name, None)


def _start(contender: Contender, stack: ExitStack) -> Worker:
    worker = Worker(contender)
    stack.callback(worker.close)
    return worker
