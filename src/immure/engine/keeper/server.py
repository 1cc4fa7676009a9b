"""The keeper: holds the boxes of one user, and answers whoever that is."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from time import sleep
from typing import Any

import msgspec

from immure.engine.keeper.held import HeldBox
from immure.engine.keeper.place import Place, peer
from immure.engine.keeper.wire import OtherVersion, close_all, error_to_value, receive_value, send_value
from immure.engine.spawners import spawner_for
from immure.engine.tracing import Wanted
from immure.errors import BoxError, BoxLost, ImmureError, SpecError
from immure.plan.launch import Launch
from immure.runtimes.gvisor.session import SentrySession

#: How long it stays with nothing to hold.
_IDLE_MS = 1000
_PATIENCE_S = 10.0
_MOST_CONNECTIONS = 256
_FOLLOWING_S = 1.0
_RETRY_S = 0.1

Answer = tuple[Any, list[int]]


class Keeper:
    """What is held, by name. Each connection asks one thing, and has a thread for that."""

    def __init__(self, listener: socket.socket, place: Place, files: tuple[int, int]) -> None:
        """`files` is the limit of open files that boxes are to have, which is not ours."""
        self._files = files
        self._listener = listener
        self._place = place
        self._changing = threading.Lock()
        self._held: dict[str, HeldBox | None] = {}
        self._connections = 0
        self._room = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._stop, self._stopper = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._verbs: dict[str, Callable[[dict[str, Any], list[int]], Answer]] = {
            "make": self._make,
            "join": self._join,
            "list": self._list,
            "kill": self._kill,
            "state": self._state,
            "pause": self._pause,
            "resume": self._resume,
            "stats": self._stats,
            "start": self._start,
        }
        self._long: dict[str, Callable[[socket.socket, dict[str, Any]], None]] = {
            "follow": self._follow,
            "trace": self._trace,
        }

    def run(self) -> None:
        """Serves until nothing is left to hold, or a signal says that it is to end; then all boxes have ended."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        poll = select.poll()
        poll.register(self._listener.fileno(), select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            ready = dict(poll.poll(_IDLE_MS))
            if self._stop in ready:
                self._place.remove_socket()
                break
            if ready:
                self._accept()
            elif self._idle() and self._leave():
                break
        for box in self._boxes():
            box.close()

    def _end(self, _number: int, _frame: object) -> None:
        os.write(self._stopper, b".")

    def _idle(self) -> bool:
        with self._changing:
            return not self._held and not self._connections

    def _leave(self) -> bool:
        """Whether it may go: while it holds the lock nobody starts another, and who has connected has not been
        answered and asks the next one."""
        lock = self._place.lock(wait=False)
        if lock is None:
            return False
        try:
            poll = select.poll()
            poll.register(self._listener.fileno(), select.POLLIN)
            if poll.poll(0):
                return False
            self._place.remove_socket()
            self._listener.close()
        finally:
            os.close(lock)
        return True

    def _accept(self) -> None:
        self._room.acquire()
        try:
            connection, _ = self._listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            with self._changing:
                self._connections += 1
        except (OSError, RuntimeError):
            # No descriptor or thread is free: whoever asked is told by its connection's end.
            traceback.print_exc()
            self._room.release()
            sleep(_RETRY_S)

    def _serve(self, connection: socket.socket) -> None:
        try:
            if _is_ours(connection):
                self._answer(connection)
        except BoxLost:
            # It did not wait for the answer.
            pass
        except Exception:
            traceback.print_exc()
        finally:
            connection.close()
            with self._changing:
                self._connections -= 1
            self._room.release()

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(_PATIENCE_S)
        try:
            found = receive_value(connection)
        except OtherVersion:
            # Its first line says which we are.
            send_value(connection, (False, error_to_value(BoxError("the keeper is of another version of immure"))))
            return None
        if found is None:
            return None
        connection.settimeout(None)
        (verb, arguments), fds = found
        try:
            if verb in self._long:
                return self._long[verb](connection, arguments)
            value, out = self._verbs[verb](arguments, fds)
        except ImmureError as error:
            send_value(connection, (False, error_to_value(error)))
        except Exception as error:
            send_value(connection, (False, error_to_value(BoxError("the keeper failed", have=repr(error)))))
            raise
        else:
            send_value(connection, (True, value), out)
        finally:
            close_all(fds)

    def _make(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        name, launch = arguments["name"], Launch.from_tuple(arguments["launch"])
        with self._changing:
            if name in self._held:
                raise SpecError(
                    f"there is a box {name!r} already",
                    path="--name",
                    need="a name that is free",
                    hint=f"immure kill {name}",
                )
            self._held[name] = None
        try:
            self._limit_files(launch)
            box = HeldBox(launch, name, fds)
        except BaseException:
            with self._changing:
                del self._held[name]
            raise
        with self._changing:
            self._held[name] = box
        return box.for_client()

    def _limit_files(self, launch: Launch) -> None:
        try:
            resource.prlimit(spawner_for(launch).pid, resource.RLIMIT_NOFILE, self._files)
        except ProcessLookupError:
            # It was killed; the box's own maker says so.
            pass

    def _join(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        return self._box(arguments["name"]).for_client()

    def _list(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        rows: list[dict[str, Any]] = []
        for box in self._boxes():
            try:
                rows.append(box.describe())
            except BoxLost:
                # It is being ended.
                continue
        return rows, []

    def _kill(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        box = self._box(arguments["name"])
        box.close()
        with self._changing:
            if self._held.get(box.name) is box:
                del self._held[box.name]
        return None, []

    def _state(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        return self._box(arguments["name"]).state, []

    def _pause(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        self._box(arguments["name"]).pause()
        return None, []

    def _resume(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        self._box(arguments["name"]).resume()
        return None, []

    def _stats(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        return msgspec.to_builtins(self._box(arguments["name"]).stats()), []

    def _start(self, arguments: dict[str, Any], fds: list[int]) -> Answer:
        box = self._box(arguments["name"])
        return box.start_background(arguments["argv"], arguments["keywords"]), []

    def _follow(self, connection: socket.socket, arguments: dict[str, Any]) -> None:
        """The log's entries, and with `follow` those that come, until the box ends or nobody listens."""
        box, after = self._box(arguments["name"]), arguments["after"]
        gone = select.poll()
        gone.register(connection.fileno(), 0)
        while True:
            held = self._held.get(box.name) is box
            logs = box.log.wait(after, _FOLLOWING_S if arguments["follow"] and held else 0)
            if logs.entries or logs.dropped_bytes:
                after = logs.entries[-1].position if logs.entries else after
                send_value(connection, (True, msgspec.to_builtins(logs, builtin_types=(bytes,))))
            elif not (arguments["follow"] and held):
                return
            if gone.poll(0):
                return

    def _trace(self, connection: socket.socket, arguments: dict[str, Any]) -> None:
        """The socket that a box's Sentry reports to, a word when it does, and at the end how much it has dropped."""
        wanted = Wanted(arguments["points"], arguments["context"], arguments["optional"])
        session = self._box(arguments["name"]).session(wanted)
        try:
            with session.listening as listening:
                send_value(connection, (True, None), [listening.fileno()])
            session.begin()
            send_value(connection, (True, None))
            _wait_for_end(connection)
        except BaseException:
            self._end_quietly(session)
            raise
        send_value(connection, (True, session.end()))

    @staticmethod
    def _end_quietly(session: SentrySession) -> None:
        try:
            session.end()
        except BoxError:
            # With its box.
            pass

    def _boxes(self) -> list[HeldBox]:
        with self._changing:
            return sorted((box for box in self._held.values() if box is not None), key=lambda box: box.created_s)

    def _box(self, name: str) -> HeldBox:
        with self._changing:
            box = self._held.get(name)
            names = [*self._held]
        if box is None:
            raise BoxLost(
                f"there is no box {name!r}",
                need="the name of a box that is kept",
                have=", ".join(names) or "none",
                hint="immure ps",
            )
        return box


def _wait_for_end(connection: socket.socket) -> None:
    """Until the other end says no more. It says nothing before."""
    try:
        connection.recv(1)
    except ConnectionResetError:
        # It has gone without reading what it was told.
        pass


def _is_ours(connection: socket.socket) -> bool:
    """Whether the other end is this user, and not in a box: there a process may have the same user id."""
    pid, uid = peer(connection)
    try:
        return uid == os.geteuid() and _user_namespace(pid) == _user_namespace(os.getpid())
    except OSError:
        return False


def _user_namespace(pid: int) -> tuple[int, int]:
    found = os.stat(f"/proc/{pid}/ns/user")  # noqa: PTH116
    return found.st_dev, found.st_ino


def main(arguments: list[str]) -> None:
    """`python -m immure.engine.keeper FD FOLDER`: FD is the socket that it is to be asked on."""
    fd, folder = arguments
    os.umask(0o077)
    # Each box takes a few.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    listener = socket.socket(fileno=int(fd))
    os.set_inheritable(listener.fileno(), False)
    place = Place(make=False)
    if place.path != folder:
        sys.exit(f"the keeper's folder is {place.path}, not {folder}")
    Keeper(listener, place, files).run()
