"""Listeners of the host's, each answering with a secret."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from security.scenes import Stage, scene


def _serve(listener: socket.socket, stop: threading.Event) -> None:
    """Answer everyone."""
    answer = secrets.token_hex().encode()
    while not stop.is_set():
        with suppress(TimeoutError, BrokenPipeError):
            if listener.type == socket.SOCK_STREAM:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(answer)
            else:
                _, address = listener.recvfrom(1024)
                if address:
                    listener.sendto(answer, address)


@contextmanager
def _listening(family: int, kind: int, address: object) -> Iterator[socket.socket]:
    stop = threading.Event()
    with socket.socket(family, kind) as listener:
        listener.bind(address)
        listener.settimeout(0.05)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        server = threading.Thread(target=_serve, args=(listener, stop), daemon=True)
        server.start()
        try:
            yield listener
        finally:
            stop.set()
            server.join()


@scene
def tcp_listener(stage: Stage) -> Iterator[None]:
    with _listening(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as listener:
        stage.give(address=listener.getsockname())
        yield


@scene
def tcp6_listener(stage: Stage) -> Iterator[None]:
    with _listening(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0)) as listener:
        stage.give(address=listener.getsockname())
        yield


@scene
def udp_listener(stage: Stage) -> Iterator[None]:
    with _listening(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)) as listener:
        stage.give(address=listener.getsockname())
        yield


@scene
def abstract_listener(stage: Stage) -> Iterator[None]:
    name = f"immure-{secrets.token_hex(8)}"
    with _listening(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{name}"):
        stage.give(name=name, kind=int(socket.SOCK_STREAM))
        yield


@scene
def abstract_datagram(stage: Stage) -> Iterator[None]:
    name = f"immure-{secrets.token_hex(8)}"
    with _listening(socket.AF_UNIX, socket.SOCK_DGRAM, f"\0{name}"):
        stage.give(name=name, kind=int(socket.SOCK_DGRAM))
        yield


@scene
def path_listener(stage: Stage) -> Iterator[None]:
    """In a folder that isn't mounted."""
    path = stage.new_folder("sockets") / "socket"
    with _listening(socket.AF_UNIX, socket.SOCK_STREAM, str(path)):
        path.chmod(0o666)
        stage.give(path=str(path))
        try:
            yield
        finally:
            path.unlink()


@scene
def default_route(stage: Stage) -> Iterator[None]:
    """A way to every address, so that the control doesn't hang on the machine's network."""
    stage.prelude.append("ip link set lo up && ip address add 192.0.2.1/32 dev lo && ip route add default dev lo")
    yield
