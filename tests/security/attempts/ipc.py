"""Memory, semaphores and queues of the host's processes."""

from __future__ import annotations

import os
from pathlib import Path

from security.attempt import Denied, attempt
from security.calls import call, checked, function


@attempt("ENOENT EACCES EPERM ENOSYS", scenes="shared_memory")
def shared_memory_by_key(key: int) -> str:
    return f"segment {call('shmget', key, 0, 0)}"


@attempt("EINVAL EACCES EPERM ENOSYS", scenes="shared_memory")
def shared_memory_by_number(number: int) -> str:
    return f"at {call('shmat', number, None, 0):#x}"


@attempt("ENOENT EACCES EPERM ENOSYS", scenes="semaphores")
def semaphores_by_key(key: int) -> str:
    return f"set {call('semget', key, 0, 0)}"


@attempt("ENOENT EACCES EPERM ENOSYS", scenes="message_queue")
def message_queue_by_key(key: int) -> str:
    return f"queue {call('msgget', key, 0)}"


@attempt(
    "ABSENT ENOENT EACCES",
    cases={kind: {"kind": kind} for kind in ("shm", "sem", "msg")},
    scenes="shared_memory semaphores message_queue",
)
def listed(kind: str, key: int) -> str:
    """Find the objects of the host in the kernel's list; all three have the same key."""
    lines = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
    if str(key) not in (found := [line.split()[0] for line in lines]):
        raise Denied("ABSENT", str(found))
    return str(key)


@attempt("ENOENT EACCES EPERM ENOSYS", scenes="posix_queue")
def posix_queue(name: str) -> str:
    """The queues of POSIX belong to the ipc namespace, whatever is mounted."""
    return f"descriptor {checked(function('mq_open')(name.encode(), os.O_RDWR))}"


@attempt("ENOENT EACCES", scenes="posix_memory")
def posix_memory(name: str) -> str:
    return f"descriptor {checked(function('shm_open')(name.encode(), os.O_RDWR, 0))}"


@attempt("ABSENT ENOENT EACCES", scenes="posix_memory")
def posix_memory_file(name: str) -> str:
    if not Path("/dev/shm", name.lstrip("/")).exists():
        raise Denied("ABSENT")
    return name
