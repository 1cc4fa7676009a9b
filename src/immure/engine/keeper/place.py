"""Where a user's keeper is found: a folder that nobody else can enter, with its socket and its lock.

Standard library only, and little of that: `immure exec` goes through here.
"""

from __future__ import annotations

import _socket
import os
import stat

from immure.errors import SetupFailed
from immure.runtimes.process.spawner import Socket

_SOCKET, _LOCK, _LOG = "keeper.sock", "keeper.lock", "keeper.log"
_PRIVATE = stat.S_IRWXG | stat.S_IRWXO
_BACKLOG = 128


def path() -> str:
    """The folder: `immure` in $XDG_RUNTIME_DIR, or what stands for that where it is not set."""
    base, uid = os.environ.get("XDG_RUNTIME_DIR"), os.geteuid()
    if base:
        return f"{base}/immure"
    own = f"/run/user/{uid}"
    try:
        if os.stat(own).st_uid == uid:  # noqa: PTH116
            return f"{own}/immure"
    except OSError:
        pass
    return "/run/immure" if uid == 0 else f"/tmp/immure-{uid}"


class Place:
    """The folder, open. Names in it are looked up from its descriptor, so that nobody can put another in its place."""

    def __init__(self, *, make: bool) -> None:
        """Raises FileNotFoundError where it is not there and not to be made, and SetupFailed where it is not ours."""
        self.path = path()
        try:
            if make:
                os.makedirs(self.path, mode=0o700, exist_ok=True)  # noqa: PTH103
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unusable(error.errno or 0, error.strerror) from error
        found = os.fstat(self.fd)
        if found.st_uid != os.geteuid() or found.st_mode & _PRIVATE:
            os.close(self.fd)
            raise self._unusable(0, f"user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}")

    def _unusable(self, errno: int, have: str | None) -> SetupFailed:
        return SetupFailed(
            f"{self.path} can't be used for kept boxes",
            step="keeper",
            errno=errno,
            need=f"a folder of user {os.geteuid()} that nobody else can enter (mode 700)",
            have=have,
            hint="remove it, or set XDG_RUNTIME_DIR",
        )

    def connect(self) -> Socket | None:
        """A connection to the keeper; None where there is none. Raises SetupFailed where somebody else answers."""
        socket = _new_socket()
        try:
            socket.connect(self._address())
            if peer(socket)[1] != os.geteuid():
                raise self._unusable(0, "a socket of somebody else's in it")
        except (FileNotFoundError, ConnectionRefusedError):
            socket.close()
            return None
        except BaseException:
            socket.close()
            raise
        return socket

    def listen(self) -> Socket:
        """A socket for a new keeper, in place of one that is gone."""
        self.remove_socket()
        socket = _new_socket()
        try:
            socket.bind(self._address())
            socket.listen(_BACKLOG)
        except BaseException:
            socket.close()
            raise
        return socket

    def remove_socket(self) -> None:
        """Takes the socket's name away."""
        try:
            os.unlink(_SOCKET, dir_fd=self.fd)
        except FileNotFoundError:
            pass

    def lock(self, *, wait: bool) -> int | None:
        """A descriptor: while it is open nobody else starts or ends a keeper. None where one does, without `wait`."""
        import fcntl

        lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(lock)
            return None
        except BaseException:
            os.close(lock)
            raise
        return lock

    def open_log(self) -> int:
        """An empty file for what a keeper has to say that nobody waits for."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(_LOG, flags, 0o600, dir_fd=self.fd)

    def last_line(self) -> str:
        """The end of that file."""
        try:
            fd = os.open(_LOG, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return ""
        try:
            os.lseek(fd, -min(4096, os.fstat(fd).st_size), os.SEEK_END)
            lines = os.read(fd, 4096).decode(errors="replace").strip().splitlines()
        finally:
            os.close(fd)
        return lines[-1] if lines else ""

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.fd)

    def _address(self) -> str:
        # The path may be longer than a socket's may.
        return f"/proc/self/fd/{self.fd}/{_SOCKET}"


def peer(socket: Socket) -> tuple[int, int]:
    """The process and user at the other end, as they were when it connected or listened. unix(7)."""
    found = socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(found[:4], "little", signed=True), int.from_bytes(found[4:8], "little")


def _new_socket() -> Socket:
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
