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
    try:
        listener = _listen(number, only)
    except OSError as error:
        if not in_sentry():
            raise RuntimeError("no listener can be installed here") from error
        call_number(number, *arguments)
        return
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, bytes([_errno_of(number, *arguments)]))
        os._exit(0)
    os.close(write)
    _answer_first(listener, read)
    verdict = os.read(read, 1)
    os.waitpid(child, 0)
    if verdict != bytes([_ARRIVED]):
        raise_errno(verdict[0])


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


def _answer_first(listener: int, verdict: int) -> None:
    """Answer the call that the listener got, if the child's verdict isn't there before."""
    ready, _, _ = select.select([listener, verdict], [], [], 5)
    if listener in ready:
        notification = bytearray(80)
        fcntl.ioctl(listener, _NOTIF_RECV, notification)
        (identity,) = struct.unpack_from("Q", notification)
        fcntl.ioctl(listener, _NOTIF_SEND, struct.pack("QqiI", identity, 0, -_ARRIVED, 0))
