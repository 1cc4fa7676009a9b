"""What the engine needs of a box, whatever carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from immure.errors import BoxError
    from immure.plan.launch import Launch
    from immure.runtimes.process.course import Course
    from immure.runtimes.process.request import Request
    from immure.runtimes.process.spawner import Socket
    from immure.runtimes.process.stem import Ended


class Commands(Protocol):
    """A box as those see it who have commands run in it, whoever owns it.

    `start` gives a socket on which things are said of one command, with the messages of `process/frames.py`:
    EXITED at its end and with `tell` STARTED before; SIGNAL goes the other way; closing it ends the command.
    """

    launch: Launch
    #: The process of this host below which all of the box is, itself included.
    pid: int
    ended: Ended | None
    #: Why it ended, where that is known and nobody had asked for it.
    failure: BoxError | None

    #: Whether nothing more can be asked of it here.
    left: bool

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
        """Asks for a command; no standard input means the box's own null device. Raises BoxLost."""
        ...

    def begin(self, request: Request, owner: tuple[int, int] | None) -> Course:
        """Asks for a command without input, whose output is kept; `owner` is who its pipes are to be of on this host.

        Its `leave` is to be called in the end. Raises BoxLost.
        """
        ...

    def open_terminal(self) -> tuple[int, int]:
        """Both ends of a new terminal for a command, ours first. Raises BoxError."""
        ...

    def resized(self, asker: Socket, columns: int, rows: int) -> None:
        """The terminal that a command was started with has another size now."""

    def give_back(self, asker: Socket) -> None:
        """Takes the socket of a command whose exit has been heard."""

    def pause(self, paused: bool) -> None:
        """Has everything in the box stop, or go on. Raises BoxLost where it has ended."""

    def moving(self) -> int:
        """How much of a box that is to be paused has not stopped yet. Waits for nothing."""
        ...

    def alive(self) -> bool:
        """Whether it can be used, as far as that is known without asking."""
        ...

    def ran_out(self) -> bool:
        """Whether it ended because the kernel had no more memory for it."""
        ...

    def kill(self) -> None:
        """Ends the box at once."""


class Box(Commands, Protocol):
    """A box and its end: `ready()` comes first, then `release()` lets the first command run; `close()` ends it all."""

    #: Readable when something is to be heard of the whole box; its number is -1 once the box is closed.
    owner: Socket

    def ready(self) -> dict[str, bytes]:
        """Waits for the box, and gives what was measured of it. Raises BoxError."""
        ...

    def release(self) -> None:
        """Lets what was measured go on."""

    def hear_owner(self) -> None:
        """Takes one message from the owner's socket, which is readable. Raises BoxLost."""

    def wait_end(self) -> Ended:
        """Waits until every process of the box is gone."""
        ...

    def close(self) -> None:
        """Ends the box and waits until it is gone. Harmless when it is gone already."""
