"""Programs for a box that harm what they can: `python3 -I hostile.py KIND COUNTERS SECONDS`.

Each counts what it does in the file COUNTERS, which is shared memory, so that it survives whatever happens to the
program. There are three numbers of 64 bits: how much was done, and when for the first and the last time, in nanoseconds
of the monotonic clock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

_MOST_FDS = 4096
_F_SETPIPE_SZ = 1031


class Counters:
    def __init__(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(fd, 24)
        self._numbers = memoryview(mmap.mmap(fd, 24)).cast("Q")
        # The mapping has a copy of it, which is not to be harmed either.
        os.closerange(3, 16)
        self._numbers[1] = self._numbers[1] or time.monotonic_ns()

    def add(self, amount: int = 1) -> None:
        # Of two at once one may be lost: it is more than what is counted, never less.
        self._numbers[0] += amount
        self._numbers[2] = time.monotonic_ns()


def flood(count: Counters) -> None:
    """Everything that takes data gets all that it takes, and more."""
    files = [os.open(f"{folder}/flood", os.O_CREAT | os.O_RDWR, 0o600) for folder in ("/tmp", "/dev/shm")]
    ours, _theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for fd in (1, 2, ours.fileno()):
        os.set_blocking(fd, False)
    chunk = bytes(range(256)) * 256
    while True:
        for fd in (1, 2, ours.fileno(), *files):
            try:
                count.add(os.write(fd, chunk))
            except OSError:
                count.add(0)
        for fd in files:
            # They are memory: with all of it taken it could do nothing more.
            if os.fstat(fd).st_size > 1 << 25:
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)


USES: tuple[Callable[[random.Random, int, int], object], ...] = (
    lambda dice, fd, other: os.write(fd, dice.randbytes(dice.choice((1, 8, 64, 4096)))),
    lambda dice, fd, other: os.pwrite(fd, dice.randbytes(64), dice.getrandbits(20)),
    lambda dice, fd, other: os.sendfile(fd, other, None, 4096),
    lambda dice, fd, other: os.ftruncate(fd, dice.getrandbits(16)),
    lambda dice, fd, other: fcntl.ioctl(fd, dice.getrandbits(16), dice.randbytes(64)),
    lambda dice, fd, other: fcntl.fcntl(fd, dice.choice((fcntl.F_SETFL, _F_SETPIPE_SZ)), dice.getrandbits(20)),
    lambda dice, fd, other: os.dup2(fd, other),
)


def write_nonsense(count: Counters) -> None:
    """To every descriptor it has, and to what its own folders of /proc and the devices lead to."""
    dice = random.Random(os.getpid())
    places = [*Path("/proc/self/fd").iterdir(), *Path("/proc/1").iterdir(), *Path("/dev").iterdir()]
    for place in [*places, *Path("/proc/self").iterdir()]:
        try:
            os.open(place, os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            continue
    while True:
        fd, other = dice.randrange(64), dice.randrange(3, 64)
        for use in USES:
            try:
                use(dice, fd, other)
            except OSError:
                pass
            count.add()


def kill(count: Counters) -> None:
    """Everybody, by every signal that a process may ignore or not, itself excepted."""
    dice = random.Random(os.getpid())
    while True:
        for pid in (-1, 1, *range(2, 200), dice.getrandbits(15)):
            number = dice.choice((signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP))
            if pid == os.getpid():
                continue
            try:
                os.kill(pid, number)
            except OSError:
                pass
            count.add()


def close(count: Counters) -> None:
    """Everything, again and again, in processes that leave their parents and stay."""
    while True:
        for fd in range(_MOST_FDS):
            try:
                os.close(fd)
            except OSError:
                pass
            count.add()
        pair = [socket.socketpair() for _ in range(8)]
        pair[0][0].shutdown(socket.SHUT_RDWR)
        try:
            pid = os.fork()
        except OSError:
            continue
        if pid == 0:
            os.setsid()
            time.sleep(2)
            os._exit(0)


def fork(count: Counters) -> None:
    """Without end; half of the children leave the session."""
    while True:
        try:
            if os.fork() == 0 and os.getpid() % 2:
                os.setsid()
            count.add()
        except OSError:
            # There is room again only when somebody else ends.
            count.add()
            time.sleep(0.001)


KINDS: dict[str, Callable[[Counters], None]] = {
    work.__name__: work for work in (flood, write_nonsense, kill, close, fork)
}


def main() -> None:
    kind, counters, seconds = sys.argv[1:]
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGSEGV, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)
    # Whoever is left ends by itself, whatever else happens: not by a mistake here is a machine to be lost.
    signal.alarm(int(float(seconds)) + 30)
    KINDS[kind](Counters(counters))


if __name__ == "__main__":
    main()
