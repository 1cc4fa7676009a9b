"""The supervisor's end of a filter that asks: takes each call of a command, has it judged, and answers.

Sources: seccomp_unotify(2), and SECCOMP_IOCTL_NOTIF_* of `linux/seccomp.h`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import threading
from collections.abc import Callable

#: A call: number, AUDIT_ARCH_*, and six arguments of 64 bits. The answer: None to carry it out, else the
#: errno of a refusal, or 0 for a call that seems to work and does nothing.
Judge = Callable[[int, int, tuple[int, ...]], "int | None"]

_RECV, _SEND, _SET_FLAGS = 0xC050_2100, 0xC018_2101, 0x4008_2104
_SYNC_WAKE_UP = 1
_CONTINUE = 1
#: struct seccomp_notif: id, pid, flags; then struct seccomp_data: number, arch, instruction pointer, arguments.
_CALL = struct.Struct("=QIIiIQ6Q")
#: struct seccomp_notif_resp: id, value, error, flags.
_ANSWER = struct.Struct("=QqiI")
#: A process that was killed meanwhile needs no answer.
_GONE = (errno.ENOENT, errno.EINTR, errno.EINPROGRESS)


class Listener:
    """Answers on a thread of its own until no process of the filter is left. Owns the descriptor.

    Where judging fails nothing is answered any more: the kernel then gives ENOSYS for every call, and `close` raises
    what had happened.
    """

    def __init__(self, fd: int, judge: Judge) -> None:
        self._fd = fd
        self._judge = judge
        self._failure: BaseException | None = None
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="immure-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it, after the calls that wait already. Raises what judging raised."""
        if self._waker >= 0:
            os.close(self._waker)
            self._waker = -1
            self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._answer_all()
        except BaseException as error:
            self._failure = error
        finally:
            os.close(self._fd)
            os.close(self._wake)

    def _answer_all(self) -> None:
        self._prefer_this_processor()
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            events = dict(poll.poll())
            if events.get(self._fd, 0) & select.POLLIN:
                self._answer_one()
            elif events:
                # The last process is gone, or nobody waits for the answers.
                return

    def _answer_one(self) -> None:
        call = bytearray(_CALL.size)
        try:
            fcntl.ioctl(self._fd, _RECV, call)
            identity, _, _, number, arch, _, *args = _CALL.unpack(call)
            refused = self._judge(number & 0xFFFF_FFFF, arch, tuple(args))
            answer = _ANSWER.pack(identity, 0, -(refused or 0), _CONTINUE if refused is None else 0)
            fcntl.ioctl(self._fd, _SEND, answer)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _prefer_this_processor(self) -> None:
        """Caller and supervisor take turns, so that they are best on one processor. Linux 6.6."""
        try:
            fcntl.ioctl(self._fd, _SET_FLAGS, _SYNC_WAKE_UP)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
