"""Boxes in a Sentry, and runsc by hand: what one sample of each is, and what things cost within."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench import oci, rivals
from bench.build import build
from bench.contender import COMMAND, Contender, python_worker
from bench.filters import Filters
from bench.memory import pss_kib
from bench.subjects import successful

if TYPE_CHECKING:
    from immure import Process

LEVEL = "L3"
SETTING = "IMMURE_RUNSC"
#: Where tools/install_gvisor.sh puts it.
INSTALLED = Path("/usr/local/lib/immure-test/newest/runsc")
#: As a box's own are started.
FLAGS = ("--network=none", "--ignore-cgroups", "--overlay2=none", "--platform=systrap")
#: On the host and in every box.
SMALL_FILE, PYTHON = "/usr/lib/os-release", ("/usr/bin/python3", "-SI", "-c", "pass")
#: What a program imports that fetches, keeps and reports something; it answers a line of numbers with their sum.
SERVER = (
    "/usr/bin/python3",
    "-SIc",
    "import argparse, asyncio, concurrent.futures, csv, decimal, email.message, http.client, json, logging, sqlite3,"
    " ssl, statistics, sys, unittest, urllib.request, xml.etree.ElementTree\n"
    "for line in sys.stdin: print(sum(map(int, line.split())), flush=True)",
)
PLACE = "/opt/inside"
#: Calls are told by thousands, since what is told are whole ns.
THOUSAND = 1000
REFILL_S = 30.0

Once = Callable[[], "Mapping[str, int] | None"]


def choose_runsc() -> str:
    """The program that all of this run use. Raises FileNotFoundError."""
    installed = str(INSTALLED) if INSTALLED.exists() else None
    path = os.environ.get(SETTING) or installed or shutil.which("runsc")
    if path is None:
        raise FileNotFoundError("runsc is missing; install it: tools/install_gvisor.sh")
    os.environ[SETTING] = path
    return path


def version_of(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].removeprefix("runsc version ")


def cold(_: Filters) -> Contender:
    return _ours("", "a cold box", f'immure.run(["{COMMAND}"], level="{LEVEL}")')


def ready(_: Filters) -> Contender:
    return _ours("-exec", "a command in a ready box", f'box.exec(["{COMMAND}"])')


def pooled(_: Filters) -> Contender:
    return _ours("-pool", "a box of a pool, and a command in it", f'pool.claim().exec(["{COMMAND}"])')


def started(_: Filters) -> Contender:
    return Contender(
        "immure-l3-started",
        f"{LEVEL}: a cold box, a Python with imports, its first result",
        f"with Sandbox(level={LEVEL!r}) as box: box.start([python3, …])",
        python_worker("immure-l3-started"),
        level=LEVEL,
        apart=True,
    )


def restored(_: Filters) -> Contender:
    return Contender(
        "immure-l3-restored",
        f"{LEVEL}: the same, restored from a snapshot",
        "with Sandbox.restore(snapshot) as copy: copy.processes[0]",
        python_worker("immure-l3-restored"),
        level=LEVEL,
        apart=True,
    )


def _ours(suffix: str, title: str, command: str) -> Contender:
    name = f"immure-l3{suffix}"
    return Contender(name, f"{LEVEL}: {title}", command, python_worker(name), level=LEVEL)


def by_hand(_: Filters) -> Contender:
    return Contender("runsc", "runsc run by hand", f"runsc {' '.join(FLAGS)} run …", python_worker("runsc"))


def exec_by_hand(_: Filters) -> Contender:
    return Contender("runsc-exec", "runsc exec by hand", f"runsc exec … {COMMAND}", python_worker("runsc-exec"))


def inside(place: str, _: Filters) -> Contender:
    """What things cost in a place, or on the bare host."""
    name = f"inside-{place}"
    level = None if place == "bare" else place[:2].upper()
    shown = f"inside {SMALL_FILE}; python3 -SI -c pass"
    return Contender(name, f"costs, {place}", shown, python_worker(name), level=level, apart=True)


@contextmanager
def cold_subject() -> Iterator[Once]:
    from immure import run

    yield lambda: successful(run([COMMAND], level=LEVEL))


@contextmanager
def ready_subject() -> Iterator[Once]:
    from immure import Sandbox

    with Sandbox(level=LEVEL) as box:
        yield lambda: successful(box.exec([COMMAND]))


class Claims:
    """Claims from a pool. To fill it again takes longer than anybody's sample, so that is waited for."""

    def __init__(self, pool: object) -> None:
        self._pool = pool
        self.settle()

    def __call__(self) -> Mapping[str, int]:
        with self._pool.claim() as box:
            return successful(box.exec([COMMAND]))

    def settle(self) -> None:
        until = time.monotonic() + REFILL_S
        while self._pool.stats().ready < self._pool.size:
            if time.monotonic() > until:
                raise RuntimeError(f"the pool is not full after {REFILL_S:g} s")
            time.sleep(0.01)
        # The last that was used may be under way to its end.
        time.sleep(0.05)


@contextmanager
def pooled_subject() -> Iterator[Once]:
    from immure import Pool

    with Pool(size=2, level=LEVEL) as pool:
        yield Claims(pool)


@contextmanager
def runtime() -> Iterator[tuple[str, ...]]:
    """runsc, with a folder of its own for what it keeps."""
    with tempfile.TemporaryDirectory(prefix="immure-bench-") as folder:
        try:
            yield (choose_runsc(), f"--root={folder}", *FLAGS)
        finally:
            # Since 2025 it leaves a network namespace mounted there.
            left = Path(folder, "null-netns")
            if os.path.ismount(left):
                subprocess.run(["umount", left], check=True)


@contextmanager
def by_hand_subject() -> Iterator[Once]:
    with runtime() as runsc, rivals.fresh(partial(oci.box, runsc, sentry=True)) as once:
        yield once


@contextmanager
def exec_by_hand_subject() -> Iterator[Once]:
    with runtime() as runsc, rivals.ready(runsc, sentry=True) as once:
        yield once


@contextmanager
def inside_subject(place: str) -> Iterator[Once]:
    program = str(build("inside"))
    if place == "bare":
        yield partial(_costs, _on_the_host, program)
        return
    from immure import Sandbox
    from immure.spec.models import GVisor, SandboxSpec

    spec = SandboxSpec(gvisor=GVisor(platform="ptrace" if place == "l3-ptrace" else "systrap"))
    with Sandbox(spec, level=place[:2].upper(), mounts=[(program, PLACE, "ro")]) as box:

        def run(argv: list[str]) -> str:
            result = box.exec(argv)
            successful(result)
            return result.stdout.text()

        yield partial(_costs, run, PLACE)


def _on_the_host(argv: list[str]) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _costs(run: Callable[[list[str]], str], program: str) -> dict[str, int]:
    """In microseconds: of a thousand of each call, of a loop, and of a Python that does nothing."""
    lines = (line.split() for line in run([program, SMALL_FILE]).splitlines())
    picoseconds = {name: int(value) for name, value in lines}
    loop = picoseconds.pop("cpu_loop")
    costs = {f"{name}_x{THOUSAND}": value * THOUSAND // 1_000_000 for name, value in picoseconds.items()}
    costs["cpu_loop"] = loop // 1_000_000
    began = time.perf_counter_ns()
    run(list(PYTHON))
    costs["python"] = (time.perf_counter_ns() - began) // 1000
    return costs


def idle_kib(level: str, count: int, idle_s: float) -> dict[str, float]:
    """PSS of a box in which nothing has run: all of its processes, the mean of so many boxes; and of that, of files.

    A Sentry gives memory back when it has been idle for some minutes.
    """
    from immure import Sandbox
    from immure.host.tree import below

    with ExitStack() as stack:
        firsts = [stack.enter_context(Sandbox(level=level))._box.pid for _ in range(count)]
        time.sleep(idle_s)
        pids = [pid for first in firsts for pid in (first, *below(first))]
        return {"all": pss_kib(pids) / count, "files": pss_kib(pids, "Pss_File") / count}


@contextmanager
def started_subject() -> Iterator[Once]:
    """A box, a Python in it that does its imports, and its first result."""
    from immure import Sandbox

    def once() -> None:
        with Sandbox(level=LEVEL) as box:
            _first_result(box.start(SERVER, stdin=-1))

    yield once


@contextmanager
def restored_subject() -> Iterator[Once]:
    """The same from a snapshot in which the imports are done."""
    from immure import Sandbox

    with Sandbox(level=LEVEL) as box:
        serving = box.start(SERVER, stdin=-1)
        _first_result(serving)
        with box.snapshot() as snapshot:

            def once() -> None:
                with Sandbox.restore(snapshot) as copy:
                    (process,) = copy.processes
                    _first_result(process)

            yield once


def _first_result(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"1 2 3\n")
    if process.stdout.readline() != b"6\n":
        raise RuntimeError("another result than was asked for")


PLACES = ("bare", "l2", "l3", "l3-ptrace")
SUBJECTS = {
    "immure-l3": cold_subject,
    "immure-l3-exec": ready_subject,
    "immure-l3-pool": pooled_subject,
    "immure-l3-started": started_subject,
    "immure-l3-restored": restored_subject,
    "runsc": by_hand_subject,
    "runsc-exec": exec_by_hand_subject,
    **{f"inside-{place}": partial(inside_subject, place) for place in PLACES},
}
