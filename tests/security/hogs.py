"""Programs that take all they can get, up to a bound that harms no host: `python3 -I hogs.py NAME BOUND [ARGUMENT…]`.

Each prints one line of JSON: how much it got, and the error that stopped it.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

_MIB = 1 << 20


def processes(bound: int) -> Iterator[int]:
    """Keep so many children at once."""
    wait, alive = os.pipe()
    for number in range(bound):
        if os.fork() == 0:
            os.close(alive)
            os.read(wait, 1)
            os._exit(0)
        yield number + 1


def threads(bound: int) -> Iterator[int]:
    """Keep so many threads at once."""
    import threading

    end = threading.Event()
    for number in range(bound):
        threading.Thread(target=end.wait, daemon=True).start()
        yield number + 1


def memory(bound: int) -> Iterator[int]:
    """Touch so many MiB."""
    held = []
    for number in range(bound):
        held.append(b"x" * _MIB)
        yield number + 1


def memory_of_children(bound: int) -> Iterator[int]:
    """Touch so many MiB, 16 in each child."""
    wait, alive = os.pipe()
    for number in range(0, bound, 16):
        ready, done = os.pipe()
        if os.fork() == 0:
            os.close(alive)
            held = b"x" * 16 * _MIB
            os.write(done, b"x")
            os.read(wait, 1)
            os._exit(len(held) & 1)
        os.close(done)
        if not os.read(ready, 1) or os.waitpid(-1, os.WNOHANG) != (0, 0):
            raise MemoryError
        yield number + 16


def shared_memory(bound: int) -> Iterator[int]:
    """Touch so many MiB that no process of the kernel's choice owns."""
    area = mmap.mmap(-1, bound * _MIB)
    for number in range(bound):
        area[number * _MIB : (number + 1) * _MIB] = b"x" * _MIB
        yield number + 1


def file_in_memory(bound: int) -> Iterator[int]:
    """Write so many MiB into a file without a name, which no limit of a file system covers."""
    file = os.memfd_create("hog")
    for number in range(bound):
        os.write(file, b"x" * _MIB)
        yield number + 1


def disk(bound: int, *folders: str) -> Iterator[int]:
    """Write so many MiB, into each of the folders by turns."""
    files = [os.open(f"{folder}/hog", os.O_CREAT | os.O_WRONLY, 0o600) for folder in folders]
    for number in range(bound):
        if os.write(files[number % len(files)], b"x" * _MIB) != _MIB:
            raise OSError(errno.ENOSPC, "short write")
        yield number + 1


def empty_files(bound: int, folder: str) -> Iterator[int]:
    """Create so many files with nothing in them: no space is written, the memory of the kernel is."""
    for number in range(bound):
        os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_WRONLY, 0o600))
        yield number + 1


def output(bound: int, descriptor: str) -> Iterator[int]:
    """Write so many MiB to standard output or standard error."""
    for number in range(bound):
        written = 0
        while written < _MIB:
            written += os.write(int(descriptor), b"x" * (_MIB - written))
        yield number + 1


def time_on_the_processor(bound: int) -> Iterator[int]:
    """Spin for so many tenths of a second, and don't listen to a polite request to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    for number in range(bound):
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            pass
        yield number + 1


HOGS: dict[str, Callable[..., Iterator[int]]] = {
    hog.__name__: hog
    for hog in (
        processes, threads, memory, memory_of_children, shared_memory, file_in_memory, disk, empty_files, output,
        time_on_the_processor,
    )
}  # fmt: skip


def main() -> None:
    name, bound, *arguments = sys.argv[1:]
    got, stopped = 0, ""
    try:
        for taken in HOGS[name](int(bound), *arguments):
            got = taken
    except OSError as error:
        stopped = errno.errorcode[error.errno or 0]
    except (MemoryError, RuntimeError) as error:
        stopped = repr(error)
    sys.stdout.write("\n" + json.dumps({"got": got, "stopped": stopped}) + "\n")
    sys.stdout.flush()
    # Children and threads that wait for us would otherwise hold us.
    os._exit(0)


if __name__ == "__main__":
    main()
