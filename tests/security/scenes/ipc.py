"""Objects of the host's ipc namespace, and what it has in /dev/shm."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Iterator

from security.calls import checked, function
from security.scenes import Stage, scene

_IPC_CREAT, _IPC_EXCL, _IPC_RMID = 0o1000, 0o2000, 0


def _key(stage: Stage) -> int:
    """One key for all kinds of objects of a stage."""
    stage.give(key=stage.outside.get("key") or secrets.randbelow(1 << 30) + 1)
    return stage.outside["key"]


@scene
def shared_memory(stage: Stage) -> Iterator[None]:
    number = checked(function("shmget")(_key(stage), ctypes.c_size_t(4096), _IPC_CREAT | _IPC_EXCL | 0o666))
    stage.give(number=number)
    try:
        yield
    finally:
        function("shmctl")(number, _IPC_RMID, None)


@scene
def semaphores(stage: Stage) -> Iterator[None]:
    number = checked(function("semget")(_key(stage), 1, _IPC_CREAT | _IPC_EXCL | 0o666))
    try:
        yield
    finally:
        function("semctl")(number, 0, _IPC_RMID)


@scene
def message_queue(stage: Stage) -> Iterator[None]:
    number = checked(function("msgget")(_key(stage), _IPC_CREAT | _IPC_EXCL | 0o666))
    try:
        yield
    finally:
        function("msgctl")(number, _IPC_RMID, None)


@scene
def posix_queue(stage: Stage) -> Iterator[None]:
    name = f"/immure-{secrets.token_hex(8)}"
    queue = checked(function("mq_open")(name.encode(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666, None))
    stage.give(name=name)
    try:
        yield
    finally:
        os.close(queue)
        checked(function("mq_unlink")(name.encode()))


@scene
def posix_memory(stage: Stage) -> Iterator[None]:
    name = f"/immure-{secrets.token_hex(8)}"
    os.close(checked(function("shm_open")(name.encode(), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)))
    stage.give(name=name)
    try:
        yield
    finally:
        checked(function("shm_unlink")(name.encode()))
