"""Children that are forked from the process that has boxes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: A child that hangs is ended, and is seen to have been.
PATIENCE_S = 20


def said_by_child(work: Callable[[], object]) -> str:
    """What `work` comes to in a forked child: its value, or the error."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE_S)
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, said.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return said if status == 0 else f"the child ended with {status}"


@contextmanager
def idle_child() -> Iterator[int]:
    """A forked child that holds a copy of every descriptor, and does nothing."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(3 * PATIENCE_S)
        while True:
            signal.pause()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
