"""Pipes that are made ahead: never used twice, and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from immure.runtimes.process import pipes


@pytest.fixture(autouse=True)
def without_any(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[pipes.Pipes]]:
    ahead: list[pipes.Pipes] = []
    monkeypatch.setattr(pipes, "_ahead", ahead)
    yield ahead
    for fds in ahead:
        close(fds)


def close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)


def leads(writer: int, reader: int) -> bool:
    os.write(writer, b"x")
    return os.read(reader, 2) == b"x"


def test_each_is_taken_once() -> None:
    pipes.make_ahead()
    first, second = pipes.take_pipes(), pipes.take_pipes()
    assert len({*first, *second}) == 8
    for out, their_out, err, their_err in (first, second):
        assert leads(their_out, out)
        assert leads(their_err, err)
        assert not any(os.get_inheritable(fd) for fd in (out, their_out, err, their_err))
    close((*first, *second))


def test_there_are_two_at_most(without_any: list[pipes.Pipes]) -> None:
    pipes.make_ahead()
    made = list(without_any)
    pipes.make_ahead()
    assert without_any == made
    assert len(made) == 1


def test_high_numbers_are_not_kept(without_any: list[pipes.Pipes], monkeypatch: pytest.MonkeyPatch) -> None:
    made = pipes.make_pipes()
    monkeypatch.setattr(pipes, "make_pipes", lambda: made)
    monkeypatch.setattr(pipes, "_MOST", 3)
    pipes.make_ahead()
    assert without_any == []
    assert not any(map(is_open, made))


def test_a_forked_child_holds_none_of_them(without_any: list[pipes.Pipes]) -> None:
    """Else the end of a command's output would be the child's end, too."""
    pipes.make_ahead()
    (fds,) = without_any
    child = os.fork()
    if child == 0:
        os._exit(sum(map(is_open, fds)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(map(is_open, fds)), "the parent has them still"


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_no_descriptors_are_left_for_it(without_any: list[pipes.Pipes], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    pipes.make_ahead()
    assert without_any == []
    with pytest.raises(OSError, match="Too many"):
        pipes.take_pipes()
