"""Kills callers and spawners at random moments, many times, and tells what was seen and what was left.

Run as a program of its own in a mount namespace of its own (`unshare -m`), where it has its own /run/immure, so that
what is left behind there is this storm's. Prints a JSON object.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import select
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from immure import PIPE, AsyncSandbox, BoxLost, ImmureError, Pool, Sandbox, run
from immure.engine import spawners
from immure.engine.prepare import host_facts, prepare
from immure.spec.keywords import spec_from_keywords
from integration.processes import Process, adopt_orphans, descendants, eventually

#: What the boxes are of.
LEVEL = os.environ.get("STORM_LEVEL", "L2")
LIMITS = {"pids": 64, "memory_mib": 128} if LEVEL == "L2" else {"memory_mib": 256}
_OFD_SETLK = 37
_PR_SET_PDEATHSIG = 1
#: What the workload does: says that it runs, leaves a child outside of its group, and goes on.
WORKLOAD = ["sh", "-c", "setsid sleep 1000 & echo > /work/$0; while :; do :; done"]


class Storm:
    def __init__(self, folder: Path, rounds: int, seconds: float) -> None:
        self.folder = folder
        self.rounds = rounds
        self.end = time.monotonic() + seconds
        self.dice = random.Random(rounds)
        self.spawners: set[int] = set()
        self.counts = {"kills": 0, "running": 0, "caller": 0, "spawner": 0}
        self.unclear: list[str] = []
        self.stuck: list[str] = []

    def go(self) -> None:
        for number in range(self.rounds):
            if time.monotonic() > self.end:
                break
            self.one(number)

    def one(self, number: int) -> None:
        """One caller, and one kill: of it, or of its spawner."""
        reader, writer = os.pipe()
        victim = self.dice.choice(("caller", "spawner"))
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            caller(number, writer, self.folder)
        os.close(writer)
        spawner = int.from_bytes(os.read(reader, 4), "little")
        self.spawners.add(spawner)
        running = self.await_moment(self.folder / str(number))
        os.kill(pid if victim == "caller" else spawner, signal.SIGKILL)
        self.counts["kills"] += 1
        self.counts["running"] += running
        self.counts[victim] += 1
        self.await_end(number, pid, reader, victim)

    def await_moment(self, sign: Path) -> bool:
        """Some kills come while the box is made, most while its command runs. True where it was seen to run."""
        if self.dice.random() < 0.7:
            eventually(sign.exists, step=0.001)
            time.sleep(self.dice.uniform(0, 0.01))
        else:
            time.sleep(self.dice.uniform(0, 0.04 if LEVEL == "L2" else 0.3))
        return sign.exists()

    def await_end(self, number: int, pid: int, reader: int, victim: str) -> None:
        if not select.select([reader], [], [], 0.5)[0] and victim == "spawner":
            # Killed before it was asked for the box: the caller has gone on with another one.
            self.spawners |= kill_spawners_of(pid)
        if not select.select([reader], [], [], 10)[0]:
            self.stuck.append(f"round {number}: the caller says nothing after its {victim} was killed")
            os.kill(pid, signal.SIGKILL)
        said = b""
        while chunk := os.read(reader, 4096):
            said += chunk
        os.close(reader)
        os.waitpid(pid, 0)
        if victim == "spawner" and said != b"clear":
            self.unclear.append(f"round {number}: {said.decode()}")
        if not eventually(lambda: not remains()):
            self.stuck.append(f"round {number}: {remains()}")


def by_run(argv: list[str], keywords: dict[str, Any]) -> None:
    run(argv, **keywords)


def by_exec(argv: list[str], keywords: dict[str, Any]) -> None:
    """With files written beside it."""
    with Sandbox(**keywords) as box:
        threading.Thread(target=write_on, args=(box,), daemon=True).start()
        box.exec(argv)


def write_on(box: Sandbox) -> None:
    try:
        while True:
            box.files.write("/tmp/a", bytes(1 << 20))
            box.files.read("/tmp/a")
    except ImmureError:
        pass


def by_start(argv: list[str], keywords: dict[str, Any]) -> None:
    with Sandbox(**keywords) as box, box.start(argv, stdin=PIPE) as process:
        assert process.stdout.read() == b""
        process.wait()


def at_a_terminal(argv: list[str], keywords: dict[str, Any]) -> None:
    with Sandbox(**keywords) as box, box.start(argv, pty=True) as process:
        process.wait()


def from_a_pool(argv: list[str], keywords: dict[str, Any]) -> None:
    with Pool(size=2, **keywords) as pool, pool.claim() as box:
        box.start(argv).wait()


def awaited(argv: list[str], keywords: dict[str, Any]) -> None:
    async def main() -> None:
        async with AsyncSandbox(**keywords) as box:
            await asyncio.gather(box.exec(argv), box.exec(["sleep", "1000"]))

    asyncio.run(main())


KINDS = (by_run, by_exec, by_start, at_a_terminal, from_a_pool, awaited)


def caller(number: int, writer: int, folder: Path) -> None:
    """Makes boxes of several kinds; says which spawner it has, and afterwards whether the error was a clear one."""
    try:
        keywords: dict[str, Any] = {"mounts": [(folder, "/work", "rw")], "level": LEVEL}
        if number % 4 == 0 and host_facts().cgroups:
            keywords |= LIMITS
        spawner = spawners.spawner_for(prepare(spec_from_keywords(keywords), base=folder))
        os.write(writer, spawner.pid.to_bytes(4, "little"))
        KINDS[number % len(KINDS)]([*WORKLOAD, str(number)], keywords)
        said = "the command ended by itself"
    except BoxLost as error:
        said = "clear" if "spawner" in str(error) or "box" in str(error) else f"unclear: {error}"
    except ImmureError as error:
        said = f"{type(error).__name__}: {error}"
    except BaseException as error:
        said = repr(error)
    try:
        # And the same process can go on.
        said = said if run(["true"], level=LEVEL).ok else "the next run failed"
    except BaseException as error:
        said = f"the next run: {error!r}"
    os.write(writer, said.encode())
    os._exit(0)


def kill_spawners_of(caller: int) -> set[int]:
    pids = {one.pid for one in descendants(caller) if one.name == "immure-spawner"}
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


def remains() -> list[Process]:
    """What is below us, but for zombies that were ours to reap and are reaped here."""
    left: list[Process] = []
    for process in descendants():
        if process.state == "Z" and process.parent == os.getpid():
            os.waitpid(process.pid, os.WNOHANG)
        else:
            left.append(process)
    return left


def locked_ranges() -> list[int]:
    """Bytes of the lock file that somebody holds."""
    fd = os.open("/run/immure/ids.lock", os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)

    class Flock(ctypes.Structure):
        _fields_ = (
            ("type", ctypes.c_short), ("whence", ctypes.c_short), ("start", ctypes.c_long), ("len", ctypes.c_long),
            ("pid", ctypes.c_int),
        )  # fmt: skip

    held: list[int] = []
    for offset in range(host_facts().ids.slots):
        lock = Flock(1, 0, offset, 1, 0)
        if libc.fcntl(fd, _OFD_SETLK, ctypes.byref(lock)) != 0:
            held.append(offset)
    os.close(fd)
    return held


def cgroups_of(pids: set[int]) -> list[str]:
    found = [path for parent in host_facts().cgroups for path in Path(parent.path).glob("immure-*")]
    return [str(path) for path in found if int(path.name.split("-")[1]) in pids]


def mounts() -> set[str]:
    """Mount points with their file system, without the numbers that differ."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join([line.split()[4], line.rpartition(" - ")[2]]) for line in lines}


def main(folder: Path, rounds: int, seconds: float) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    Path("/run/immure").mkdir(mode=0o700, exist_ok=True)
    assert libc.mount(b"tmpfs", b"/run/immure", b"tmpfs", 0, b"mode=0700") == 0, os.strerror(ctypes.get_errno())
    adopt_orphans()
    host_facts()
    before = mounts()
    storm = Storm(folder, rounds, seconds)
    began = time.monotonic()
    storm.go()
    # What only the next spawner can tidy, it has tidied by now.
    pid = os.fork()
    if pid == 0:
        os._exit(0 if run(["true"], **(LIMITS if host_facts().cgroups else {})).ok else 1)
    last = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    eventually(lambda: not remains())
    report = {
        **storm.counts,
        "seconds": time.monotonic() - began,
        "next_run": last,
        "unclear": storm.unclear,
        "stuck": storm.stuck,
        "processes": [f"{one.pid} {one.name} {one.state}" for one in remains()],
        "mounts": sorted(mounts() - before),
        "cgroups": cgroups_of(storm.spawners),
        "locked": locked_ranges(),
        "files": sorted(path.name for path in Path("/run/immure").iterdir()),
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
