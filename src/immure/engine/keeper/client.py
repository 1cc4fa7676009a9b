"""Asking a user's keeper, and starting it where there is none.

Standard library only, and little of that: `immure exec` goes through here.
"""

from __future__ import annotations

import _socket
import os
import sys

from immure.engine.keeper.place import Place
from immure.engine.keeper.wire import GREETING, OtherVersion, error_of, receive_value, send_value
from immure.errors import BoxError, BoxLost, ImmureError
from immure.runtimes.process.spawner import Socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from typing import Any


class Asked:
    """A connection with a question under way."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def answer(self) -> tuple[Any, list[int]] | None:
        """The next answer and its descriptors; None after the last. Raises the ImmureError that it is."""
        try:
            found = receive_value(self._socket)
        except OtherVersion as other:
            raise BoxError(
                "the keeper is of another version of immure",
                need=GREETING.decode().strip(),
                have=other.have,
                hint="end its boxes with that version (immure kill --all), and it goes",
            ) from None
        if found is None:
            return None
        (fine, value), fds = found
        if not fine:
            raise error_of(value)
        return value, fds

    def say_no_more(self) -> None:
        """Tells the keeper that we want no more than what it answers yet."""
        try:
            self._socket.shutdown(_socket.SHUT_WR)
        except OSError:
            # It is gone.
            pass

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()


def ask(
    verb: str, arguments: dict[str, Any], fds: list[int] | None = None, *, start: bool = False
) -> tuple[Any, list[int]]:
    """The one answer to a question. With `start`, a keeper is started where there is none.

    Raises what the keeper raises, and BoxLost where there is none or it is lost.
    """
    for last in (False, True):
        asked = begin(verb, arguments, fds, start=start)
        if asked is None:
            raise no_keeper()
        try:
            answer = asked.answer()
        finally:
            asked.close()
        if answer is not None:
            return answer
        # It was about to leave, or was killed, and with it what it held.
        if last:
            raise lost()
    raise AssertionError


def begin(verb: str, arguments: dict[str, Any], fds: list[int] | None = None, *, start: bool = False) -> Asked | None:
    """Asks; None where there is no keeper."""
    try:
        place = Place(make=start)
    except FileNotFoundError:
        return None
    try:
        socket = place.connect() or (_started(place) if start else None)
        if socket is None:
            return None
        try:
            send_value(socket, (verb, arguments), fds)
        except BoxLost:
            # The answer's end says so too.
            pass
        except BaseException:
            socket.close()
            raise
        return Asked(socket)
    finally:
        place.close()


def _started(place: Place) -> Socket:
    lock = place.lock(wait=True)
    assert lock is not None
    try:
        socket = place.connect()
        if socket is None:
            _start(place)
            socket = place.connect()
    finally:
        os.close(lock)
    if socket is None:
        raise lost()
    return socket


def _start(place: Place) -> None:
    """A keeper that has its socket from us, so that it can be asked at once."""
    import subprocess

    log, listener = place.open_log(), place.listen()
    try:
        command = [sys.executable, "-P", "-m", "immure.engine.keeper", str(listener.fileno()), place.path]
        keeper = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            cwd="/",
            env=_environment(),
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
        # Nobody waits for it: it outlives us.
        keeper.returncode = 0
    except OSError as error:
        place.remove_socket()
        raise BoxLost("the keeper can't be started", need=sys.executable, have=str(error)) from error
    finally:
        os.close(log)
        listener.close()


def _environment() -> dict[str, str]:
    """Ours. It starts elsewhere, so what begins at the working directory would lead to something else."""
    places = os.environ.get("PYTHONPATH")
    if not places:
        return dict(os.environ)
    absolute = [os.path.abspath(one) for one in places.split(os.pathsep) if one]  # noqa: PTH100
    return {**os.environ, "PYTHONPATH": os.pathsep.join(absolute)}


def no_keeper() -> ImmureError:
    """The error of a box that is asked for where none is kept."""
    return BoxLost("no box is kept", need="a box that was made with --keep", have="none", hint="immure run --keep …")


def lost() -> ImmureError:
    """The error of a keeper that went away."""
    try:
        place = Place(make=False)
    except (FileNotFoundError, ImmureError):
        return BoxLost("the keeper is gone")
    try:
        return BoxLost("the keeper is gone", have=place.last_line() or None, hint="try again")
    finally:
        place.close()
