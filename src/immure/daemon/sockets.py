"""Where the daemon listens: a Unix socket that its user alone can open, and a TCP port of this host's own address."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import stat

from immure.engine.keeper.place import path as own_folder
from immure.errors import SetupFailed, SpecError

_BACKLOG = 128
_LEAST_TOKEN_BYTES = 16
_NOBODY_ELSE = stat.S_IRWXG | stat.S_IRWXO
LOOPBACK = "127.0.0.1"


class UnixListener:
    """A Unix socket of mode 600, and the lock that keeps a second daemon off it."""

    def __init__(self, path: str | None) -> None:
        """Raises SetupFailed where somebody listens there, or something else is in its place."""
        self.path = path or f"{own_folder()}/serve.sock"
        try:
            if path is None:
                os.makedirs(own_folder(), mode=0o700, exist_ok=True)  # noqa: PTH103
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._remove_old()
            self.socket = _bound(self.path)
        except BlockingIOError as error:
            os.close(self._lock)
            raise self._used() from error
        except OSError as error:
            os.close(self._lock)
            raise self._unusable(error) from error
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Takes it away."""
        self.socket.close()
        for path in (self.path, f"{self.path}.lock"):
            try:
                os.unlink(path)  # noqa: PTH108
            except FileNotFoundError:
                continue
        os.close(self._lock)

    def _remove_old(self) -> None:
        """What a daemon that was killed has left. Who has no lock may still listen."""
        try:
            if not stat.S_ISSOCK(os.lstat(self.path).st_mode):
                raise FileExistsError(errno.EEXIST, "something else than a socket is there")
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX) as trial:
            if trial.connect_ex(self.path) != errno.ECONNREFUSED:
                raise self._used()
        os.unlink(self.path)  # noqa: PTH108

    def _used(self) -> SetupFailed:
        return SetupFailed(
            f"somebody listens at {self.path}",
            step="socket",
            need="a path of one's own",
            have="another daemon's",
            hint="end that one, or name another path with --socket",
        )

    def _unusable(self, error: OSError) -> SetupFailed:
        return SetupFailed(
            f"{self.path} can't be listened at",
            step="socket",
            errno=error.errno or 0,
            need="a path in a folder that can be written, of at most 107 bytes",
            have=error.strerror or str(error),
            hint="name another path with --socket",
        )


def _bound(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o177)
    try:
        made.bind(path)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise OSError(error.errno, error.strerror or str(error)) from error
    finally:
        os.umask(mask)
    return made


def listen_tcp(where: str) -> socket.socket:
    """A socket at HOST:PORT, or at PORT of 127.0.0.1. Raises SpecError and SetupFailed."""
    host, port = _address(where)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise SetupFailed(
            f"{where} can't be listened at", step="socket", errno=error.errno or 0, have=error.strerror
        ) from error
    return made


def _address(where: str) -> tuple[str, int]:
    host, _, port = where.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or LOOPBACK
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not port.isdigit() or int(port) > 65_535:
        raise SpecError(f"{where} names no port", path="--listen", need="HOST:PORT", have=where)
    if not local:
        raise SpecError(
            f"{host} is not this host's own address",
            path="--listen",
            need="a loopback address, since what is said is not encrypted",
            have=host,
            hint="listen at 127.0.0.1, and put a proxy with TLS before it",
        )
    return (LOOPBACK if host == "localhost" else host), int(port)


def read_token(path: str | None) -> bytes:
    """The token that a file holds. Raises SpecError where others may read it, or it is short."""
    need = f"a file that its owner alone may read, with at least {_LEAST_TOKEN_BYTES} characters"
    if path is None:
        raise SpecError(
            "TCP needs a token",
            path="--token-file",
            need=need,
            have="no --token-file",
            hint="(umask 077; head -c 32 /dev/urandom | base64 > FILE)",
        )
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SpecError(f"{path} can't be read", path="--token-file", need=need, have=error.strerror) from error
    with open(fd, "rb") as file:  # noqa: PTH123
        mode = stat.S_IMODE(os.fstat(fd).st_mode)
        token = file.read(4096).strip()
    if mode & _NOBODY_ELSE:
        have, hint = f"mode {mode:o}", f"chmod 600 {path}"
        raise SpecError(f"others may read {path}", path="--token-file", need=need, have=have, hint=hint)
    if len(token) < _LEAST_TOKEN_BYTES or not token.isascii() or b" " in token:
        have = f"{len(token)} characters" if token.isascii() else "other bytes"
        raise SpecError(f"{path} holds no token", path="--token-file", need=need, have=have)
    return token
