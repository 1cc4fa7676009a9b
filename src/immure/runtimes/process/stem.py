"""A box as those see it who have commands run in it, whoever owns it. Blocking; safe to use from several threads.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import _thread
import os

from immure.errors import BoxError, BoxLost
from immure.plan.launch import Launch
from immure.runtimes.process import frames
from immure.runtimes.process.captured import capture
from immure.runtimes.process.spawner import Socket, hang_up, memory_file, pair, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from immure.runtimes.base import Commands
    from immure.runtimes.process.attend import Stdio
    from immure.runtimes.process.course import Course
    from immure.runtimes.process.request import Request

#: As many commands at once find a socket that was used before.
_MOST_ASKERS = 16


class Ended:
    """The end of a box: pid 1's wait status, what it used, and the kernel's counters of its cgroups."""

    __slots__ = ("counters", "cpu_ms", "memory_peak_bytes", "status")

    def __init__(self, message: bytes) -> None:
        self.status = frames.i32(message, 8)
        self.cpu_ms = frames.u64(message, 12) // 1000
        self.memory_peak_bytes = frames.u64(message, 20) * 1024
        self.counters = frames.items(message, 28)


class Stem:
    """What commands are asked of."""

    def __init__(self, launch: Launch, stem: Socket) -> None:
        self.launch = launch
        self.stem = stem
        #: Held while a socket is used: one that another thread closes meanwhile may be somebody else's number. In the
        #: same thread the handler of a signal may come in between.
        self._using = _thread.RLock()
        #: The box's first process, once it is ready.
        self.pid = 0
        self.ended: Ended | None = None
        self.failure: BoxError | None = None
        #: Sockets of commands that have ended.
        self._askers: list[Socket] = []
        #: Nothing more can be asked of it here.
        self.left = False

    def start(
        self,
        payload: bytes,
        stdio: tuple[int | None, int, int],
        *,
        hold: bool = False,
        tell: bool = False,
        terminal: bool = False,
        builtin: bool = False,
    ) -> Socket:
        """Asks for a command; no standard input means the box's own null device.

        Its exit comes on the returned socket, and closing that ends it. With `hold`, output is at its end only once
        the exit is there; with `tell`, STARTED comes first; with `terminal`, standard input is one and becomes its own;
        with `builtin`, what is named is an operation of the native program.
        """
        try:
            ours, theirs = self._askers.pop(), None
        except IndexError:
            ours, theirs = pair()
        first, out, err = stdio
        fds = [out, err] if first is None else [first, out, err]
        if theirs is not None:
            fds.insert(0, theirs.fileno())
        flags = (frames.NO_INPUT if first is None else 0) | (frames.HOLD if hold else 0)
        flags |= (frames.TELL if tell else 0) | (frames.TERMINAL if terminal else 0)
        flags |= frames.BUILTIN if builtin else 0
        file = -1
        if len(payload) > frames.INLINE_LIMIT:
            file = memory_file(payload)
            fds.append(file)
            flags, payload = flags | frames.IN_FILE, b""
        try:
            message = frames.header(frames.EXEC, flags) + payload
            if theirs is None:
                send(ours, message, fds)
            else:
                with self._using:
                    send(self.stem, message, fds)
        except BoxLost as error:
            ours.close()
            raise _ended() from error
        except BaseException:
            hang_up(ours)
            raise
        finally:
            if theirs is not None:
                theirs.close()
            if file >= 0:
                os.close(file)
        return ours

    def begin(self, request: Request, owner: tuple[int, int] | None) -> Course:
        """As any box's."""
        return capture(self, request, owner)

    def open_terminal(self) -> tuple[int, int]:
        """A new terminal, ours first: one of the box's own, whose name leads to it there, where its stem makes them.

        Raises BoxLost, and BoxError where there is none.
        """
        if not self.launch.terminals:
            return os.openpty()
        ours, theirs = pair()
        try:
            self._tell(frames.header(frames.OPEN_TERMINAL), [theirs.fileno()])
            theirs.close()
            message, fds = receive(ours)
        finally:
            ours.close()
            theirs.close()
        if len(fds) == 2:
            return fds[0], fds[1]
        if not message:
            raise _ended()
        raise BoxError("the box has no terminal to give", have=os.strerror(frames.i32(message, 8)))

    def resized(self, asker: Socket, columns: int, rows: int) -> None:
        """A command's terminal is the caller's own, so that the kernel has told it."""

    def moving(self) -> int:
        """How many processes of a box that is to be paused have not stopped yet."""
        from immure.host.tree import moving

        return moving(self.pid)

    def alive(self) -> bool:
        """Whether its stem is there."""
        import select

        poll = select.poll()
        poll.register(self.stem.fileno(), 0)
        return not poll.poll(0)

    def pause(self, paused: bool) -> None:
        """Has everything in the box stop, or go on. Raises BoxLost where it has ended."""
        self._tell(frames.header(frames.PAUSE if paused else frames.RESUME), [])

    def _tell(self, message: bytes, fds: list[int]) -> None:
        try:
            with self._using:
                send(self.stem, message, fds)
        except BoxLost as error:
            raise _ended() from error

    def give_back(self, asker: Socket) -> None:
        """Keeps the socket of a command whose exit has been heard for the next one: both sides save making another."""
        if len(self._askers) < _MOST_ASKERS:
            self._askers.append(asker)
        else:
            asker.close()

    def ran_out(self) -> bool:
        """Never: the kernel ends a command, and not what asks for it."""
        return False

    def kill(self) -> None:
        """Ends the box at once."""
        raise NotImplementedError

    def leave(self) -> None:
        """Ends the commands that were asked for here, and lets go of the box."""
        self.left = True
        with self._using:
            self.stem.close()
        while self._askers:
            self._askers.pop().close()


def _ended() -> BoxLost:
    return BoxLost("the box has ended", need="a box in use", have="its stem is gone", hint="make a new Sandbox")


def ask(box: Commands, request: Request, stdio: Stdio, owner: tuple[int, int] | None, **manner: bool) -> Socket:
    """Asks for a command, as `start`, gives its streams to `owner`, and lets go of what it alone is to hold."""
    if owner is not None:
        stdio.own(*owner)
    asker = box.start(request.payload(), stdio.theirs, **manner)
    try:
        stdio.given()
        stdio.settled()
    except BaseException:
        hang_up(asker)
        raise
    return asker
