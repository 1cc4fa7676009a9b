"""A VMM that was taken over says what it likes on its API: the client ends within its time and its memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from immure.errors import BoxLost, VmmRefused
from immure.runtimes.firecracker import client as client_module
from immure.runtimes.firecracker.client import Client


def facing(serve: Callable[[socket.socket], None]) -> Client:
    """A client whose other end is `serve`, in a thread."""

    def connect(within_s: float) -> socket.socket:
        ours, theirs = socket.socketpair()

        def run() -> None:
            with theirs:
                try:
                    theirs.recv(65_536)
                    serve(theirs)
                except OSError:
                    pass

        threading.Thread(target=run, daemon=True).start()
        return ours

    return Client(connect)


def saying(answer: bytes) -> Client:
    return facing(lambda end: end.sendall(answer))


def body(content: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(content), content)


def test_control() -> None:
    assert saying(body(b'{"firecracker_version":"1.12.1","more":1}')).version() == "1.12.1"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        body(b"{"),
        body(b"[]"),
        body(b'{"firecracker_version":1}'),
        body(b"[" * 100_000),
        body(b"\xff\xfe"),
    ],
)
def test_nonsense(answer: bytes) -> None:
    with pytest.raises(BoxLost):
        saying(answer).version()


def test_an_endless_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    def serve(end: socket.socket) -> None:
        nonlocal sent
        end.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += end.send(b"x" * 65_536)

    with pytest.raises(BoxLost, match="too long"):
        facing(serve).version()
    assert sent < 8 * 1024 * 1024


@pytest.mark.parametrize("pieces", [b"", b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 50])
def test_silence_and_a_drip(monkeypatch: pytest.MonkeyPatch, pieces: bytes) -> None:
    monkeypatch.setattr(client_module, "CALL_S", 0.3)
    done = threading.Event()

    def serve(end: socket.socket) -> None:
        for at in range(len(pieces)):
            end.sendall(pieces[at : at + 1])
            if done.wait(0.05):
                return
        done.wait()

    with pytest.raises(BoxLost, match=r"need.*within 0\.3 s"):
        facing(serve).version()
    done.set()


def test_a_fault_is_one_line_of_bounded_length() -> None:
    fault = b'{"fault_message":"' + b"a\\n\\u001b[31m" * 50_000 + b'"}'
    with pytest.raises(VmmRefused) as refused:
        saying(body(fault, "400 Bad Request")).version()
    assert len(refused.value.have or "") <= 2000
    assert "\n" not in str(refused.value)


def test_nobody_there() -> None:
    def connect(within_s: float) -> socket.socket:
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(BoxLost, match="Connection refused"):
        Client(connect).version()
