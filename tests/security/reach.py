"""Whether a call gets through the filters of this process, without the kernel ever carrying it out.

Some calls would harm the host, and some are missing from the kernel at hand, so that their own errors show
nothing. A filter of our own hands the call over to a listener (`SECCOMP_RET_USER_NOTIF`). An error from any filter
outside ours goes before that: the listener sees the call only if nothing else refused it.

A Sentry has no such listeners. What a call does there it does to the Sentry, so that it is made: whatever refuses it,
it came to nothing.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from security.calls import NUMBERS, call, call_number, raise_errno

_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ALLOW, _USER_NOTIF = 0x7FFF_0000, 0x7FC0_0000
_NOTIF_RECV, _NOTIF_SEND = 0xC050_2100, 0xC018_2101
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_PR_SET_NO_NEW_PRIVS = 38

# What our listener answers; no filter or kernel gives this error for any call used here.
_ARRIVED = errno.EXFULL


def reaches_kernel(name: str, *arguments: int, bits: int = 0, only: tuple[int, int] | None = None) -> None:
    """Return if the call would have been carried out, raise its error if it was refused before.

    `bits` are set in the call's number; `only` limits the trap to calls whose argument, by index, has this value.
    """
    number = NUMBERS[name] | bits
    listening: SimpleQueue[int | OSError] = SimpleQueue()
    read, write = os.pipe()

    def use() -> None:
        # Filters are a thread's own (seccomp(2)), and go with it.
        try:
            listening.put(_listen(number, only))
        except OSError as error:
            listening.put(error)
        else:
            os.write(write, bytes([_errno_of(number, *arguments)]))

    thread = Thread(target=use)
    thread.start()
    try:
        listener = listening.get()
        if isinstance(listener, int):
            verdict = _verdict(listener, read)
        elif in_sentry():
            verdict = _errno_of(number, *arguments) or _ARRIVED
        else:
            raise RuntimeError("no listener can be installed here") from listener
    finally:
        thread.join()
        os.close(read)
        os.close(write)
    if verdict != _ARRIVED:
        raise_errno(verdict)


def in_sentry() -> bool:
    """Whether gVisor's kernel answers here."""
    return Path("/proc/sentry-meminfo").exists()


def _listen(number: int, only: tuple[int, int] | None) -> int:
    trap = [(_RETURN, 0, 0, _USER_NOTIF)]
    if only is not None:
        index, value = only
        trap = [(_LOAD, 0, 0, 16 + 8 * index), (_JUMP_IF_EQUAL, 0, 1, value), *trap]
    steps = [(_LOAD, 0, 0, 0), (_JUMP_IF_EQUAL, 0, len(trap), number), *trap, (_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)), 16)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return call("seccomp", _SET_MODE_FILTER, _NEW_LISTENER, program)


def _errno_of(number: int, *arguments: int) -> int:
    try:
        call_number(number, *arguments)
    except OSError as error:
        return error.errno or 0
    return 0


def _verdict(listener: int, told: int) -> int:
    """What the call comes to: the listener answers it, if nothing else has before."""
    try:
        select.select([listener, told], [], [])
        # A listener of a thread that has ended is ready, too, and has nothing to tell.
        if not select.select([told], [], [], 0)[0]:
            notification = bytearray(80)
            fcntl.ioctl(listener, _NOTIF_RECV, notification)
            (identity,) = struct.unpack_from("Q", notification)
            fcntl.ioctl(listener, _NOTIF_SEND, struct.pack("QqiI", identity, 0, -_ARRIVED, 0))
        return os.read(told, 1)[0]
    finally:
        os.close(listener)
