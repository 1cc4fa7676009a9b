"""Kills callers and spawners at random moments, many times, and tells what was seen and what was left.

Run as a program of its own in a mount namespace of its own (`unshare -m`), where it has its own /run/immure, so that
what is left behind there is this storm's. Prints a JSON object.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

from immure import BoxLost, ImmureError, Sandbox, run
from immure.engine import spawners
from immure.engine.prepare import host_facts, prepare
from immure.spec.keywords import spec_from_keywords
from integration import callers, machine_callers
from integration.processes import Process, adopt_orphans, descendants, eventually

#: What the boxes are of.
SPEC: dict[str, Any] = json.loads(os.environ.get("STORM_SPEC", '{"level": "L2"}'))
MACHINES = "runtime" in SPEC
KINDS = machine_callers.KINDS if MACHINES else callers.KINDS
LIMITS = {"pids": 64, "memory_mib": 128} if SPEC["level"] == "L2" else {"memory_mib": 256}
#: A guest whose kernel is interpreted takes so long to run a command.
PATIENCE_S = 60.0 if MACHINES else 10.0
#: Whose command runs, and who says nothing for so long, has gone on with another box.
NEXT_S = 2.0 if MACHINES else 0.5
#: In so many seconds most boxes run, whose moment is not known to come sooner.
LATEST_S = 0.04 if SPEC["level"] == "L2" else 0.3
_OFD_SETLK = 37
_PR_SET_PDEATHSIG = 1


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
        if victim == "spawner" and not running:
            self.end_who_went_on(pid, reader, self.folder / str(number))
        self.await_end(number, pid, reader, victim)

    def await_moment(self, sign: Path) -> bool:
        """Some kills come while the box is made, most while its command runs. True where it was seen to run."""
        if self.dice.random() < 0.7:
            eventually(sign.exists, within=PATIENCE_S, step=0.001)
            time.sleep(self.dice.uniform(0, 0.3 if MACHINES else 0.01))
        else:
            time.sleep(self.dice.uniform(0, LATEST_S))
        return sign.exists()

    def end_who_went_on(self, pid: int, reader: int, sign: Path) -> None:
        """A spawner that is killed before it was asked for the box is replaced by another one: what runs is of that."""
        eventually(lambda: sign.exists() or heard(reader, 0), within=PATIENCE_S)
        if sign.exists() and not heard(reader, NEXT_S):
            self.spawners |= kill_spawners_of(pid)

    def await_end(self, number: int, pid: int, reader: int, victim: str) -> None:
        if not heard(reader, PATIENCE_S):
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


def caller(number: int, writer: int, folder: Path) -> None:
    """Makes boxes of several kinds; says which spawner it has, and afterwards whether the error was a clear one."""
    try:
        limits = LIMITS if number % 4 == 0 and host_facts().cgroups else {}
        mounts = {} if MACHINES else {"mounts": [(folder, "/work", "rw")]}
        keywords: dict[str, Any] = {**SPEC, **limits, **mounts}
        spawner = spawners.spawner_for(prepare(spec_from_keywords(keywords), base=folder))
        os.write(writer, spawner.pid.to_bytes(4, "little"))
        KINDS[number % len(KINDS)](keywords, folder / str(number))
        said = "the command ended by itself"
    except BoxLost as error:
        named = ("spawner", "box", "machine has ended") if MACHINES else ("spawner", "box")
        said = "clear" if any(one in str(error) for one in named) else f"unclear: {error}"
    except ImmureError as error:
        said = f"{type(error).__name__}: {error}"
    except BaseException as error:
        said = repr(error)
    os.write(writer, said.encode())
    try:
        # And the same process can go on.
        said = "" if run(["true"], **SPEC).ok else ", the next run failed"
    except BaseException as error:
        said = f", the next run: {error!r}"
    os.write(writer, said.encode())
    os._exit(0)


def heard(reader: int, within_s: float) -> bool:
    return bool(select.select([reader], [], [], within_s)[0])


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


def boot_once() -> None:
    """A machine that had to boot first would not come to its end within a round."""
    pid = os.fork()
    if pid == 0:
        limits = LIMITS if host_facts().cgroups else {}
        os._exit(0 if all(run(["true"], **one).ok for one in (SPEC, {**SPEC, **limits})) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def tidied(folder: Path) -> int:
    """Makes one of each kind of thing. 0 where that works."""
    limits = LIMITS if host_facts().cgroups else {}
    with Sandbox(**{**SPEC, **limits}) as box:
        ok = box.exec(["true"]).ok
        if MACHINES:
            with box.snapshot() as taken:
                taken.save(folder / "last")
    return 0 if ok else 1


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
    if MACHINES:
        boot_once()
    before = mounts()
    storm = Storm(folder, rounds, seconds)
    began = time.monotonic()
    storm.go()
    # What only the next spawner can tidy, it has tidied by now.
    pid = os.fork()
    if pid == 0:
        os._exit(tidied(folder))
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
