"""Which of several connections to a guest of Firecracker's is taken: the first that answers, whatever the others do."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from immure.channel import frames
from immure.channel.frames import encode
from immure.channel.host import hello_of_guest
from immure.errors import ChannelError
from immure.runtimes.firecracker.tries import Try, first_answered

pytestmark = pytest.mark.rootless
SOON_S, PATIENCE_S = 0.05, 10.0
ANSWER = b"OK 1073741824\n" + hello_of_guest() + encode(frames.Pong(1))


@pytest.fixture
def pairs() -> Iterator[list[tuple[Try, socket.socket]]]:
    made: list[tuple[Try, socket.socket]] = []
    for _ in range(3):
        ours, guest = socket.socketpair()
        made.append((Try(ours), guest))
    yield made
    for one, guest in made:
        one.close()
        guest.close()


def answered(pairs: list[tuple[Try, socket.socket]], within_s: float = SOON_S) -> tuple[Try | None, list[Try]]:
    tries = [one for one, _ in pairs]
    return first_answered(tries, time.monotonic() + within_s), tries


def test_one_that_answers_beside_those_that_never_do(pairs: list[tuple[Try, socket.socket]]) -> None:
    guest = pairs[1][1]
    assert guest.recv(100) == b"CONNECT 1\n"
    guest.sendall(ANSWER + b"more")
    found, tries = answered(pairs, PATIENCE_S)
    assert found is pairs[1][0]
    assert len(tries) == 3
    fd, heard = found.taken()
    with socket.socket(fileno=fd) as connection:
        # The answer to our ping was for us alone; what came after it is the caller's.
        assert heard == hello_of_guest() + b"more"
        connection.setblocking(True)
        guest.sendall(b"here")
        assert connection.recv(4) == b"here"


def test_an_answer_in_pieces(pairs: list[tuple[Try, socket.socket]]) -> None:
    for byte in ANSWER[:-1]:
        pairs[0][1].sendall(bytes([byte]))
        assert answered(pairs, 0)[0] is None
    pairs[0][1].sendall(ANSWER[-1:])
    assert answered(pairs, PATIENCE_S)[0] is pairs[0][0]


def test_those_that_are_cut_or_refused_are_let_go_of(pairs: list[tuple[Try, socket.socket]]) -> None:
    pairs[0][1].close()
    pairs[1][1].sendall(b"nobody listens\n")
    found, tries = answered(pairs)
    assert found is None
    assert tries == [pairs[2][0]]
    assert pairs[0][0].fileno() == pairs[1][0].fileno() == -1


def test_one_that_was_cut_before_a_word() -> None:
    ours, guest = socket.socketpair()
    guest.close()
    tries = [Try(ours)]
    assert first_answered(tries, time.monotonic() + SOON_S) is None
    assert tries == []


@pytest.mark.parametrize(
    "said", [bytes(4), b"\xff\xff\xff\xff", encode(frames.Pong(1)), hello_of_guest() + encode(frames.Pong(2))]
)
def test_what_our_init_would_not_say(pairs: list[tuple[Try, socket.socket]], said: bytes) -> None:
    pairs[0][1].sendall(b"OK 1\n" + said)
    with pytest.raises(ChannelError):
        answered(pairs)
