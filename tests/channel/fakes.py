"""A guest that says what a test wants, and the sandbox that believes it to be a box."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.hosted import begin_face
from immure import Sandbox
from immure.channel import frames
from immure.channel.blocking import ThreadDriver
from immure.channel.frames import Frame, encode
from immure.channel.limits import HOST_FRAME_BYTES, MAGIC, STREAMS, VERSION, WINDOW_BYTES
from immure.channel.splitter import Splitter
from immure.engine.prepare import prepare
from immure.engine.session import Measured
from immure.plan.launch import Launch
from immure.runtimes.guest.box import GuestBox
from immure.spec.models import SandboxSpec

HELLO = frames.Hello(MAGIC, VERSION, HOST_FRAME_BYTES, STREAMS, WINDOW_BYTES)
CONFIGURED = frames.Configured(None, None)
PATIENCE_S = 20.0


def a_launch() -> Launch:
    return prepare(SandboxSpec(), base=Path.cwd())


class FakeGuest:
    """The guest's end of a channel."""

    def __init__(self) -> None:
        self.socket, self._theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        self._splitter = Splitter(HOST_FRAME_BYTES)
        #: The box was let go of.
        self.ended = threading.Event()

    def box(self, **options: Any) -> GuestBox:
        """A box behind it; once."""
        theirs = self._theirs
        receives, sends = os.dup(theirs.fileno()), os.dup(theirs.fileno())
        theirs.close()
        return GuestBox(
            receives,
            sends,
            a_launch(),
            lambda: b"",
            pid=os.getpid(),
            end=self.ended.set,
            **{"drive": ThreadDriver, **options},
        )

    def say(self, *said: Frame | bytes) -> None:
        """Sends it; what nobody hears any more is not said."""
        data = b"".join(one if isinstance(one, bytes) else encode(one) for one in said)
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def hear(self) -> Frame | None:
        """What the host says next; None at the end."""
        while (body := self._splitter.next()) is None:
            try:
                data = self.socket.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._splitter.put(data)
        return frames.decode_any(body)

    def hear_until(self, kind: type[Frame]) -> Frame:
        while type(frame := self.hear()) is not kind:
            assert frame is not None, f"the host has said no {kind.__name__}"
        return frame

    def answer_hello(self) -> None:
        self.say(HELLO)
        self.hear_until(frames.Configure)
        self.say(CONFIGURED)

    def see_off(self) -> None:
        """Ends when it is told to."""
        self.hear_until(frames.Shutdown)
        self.say(frames.Bye())

    def close(self) -> None:
        self.socket.close()


class FakeSandbox(Sandbox):
    """A `Sandbox` whose box is a fake guest's."""

    def __init__(self, guest: FakeGuest, **options: Any) -> None:
        begin_face(self)
        self._measured = Measured(self._launch, {}, ())
        self._stem = self._box = guest.box(**options)


@contextmanager
def nothing_left() -> Iterator[None]:
    """Neither descriptors nor threads are left in the end."""
    # What is made once, at the first use.
    a_launch()
    before = counts()
    yield
    deadline = time.monotonic() + 5
    while counts() > before:
        assert time.monotonic() < deadline, f"{counts()} of {before} are left"
        time.sleep(0.01)


def counts() -> tuple[int, int]:
    threads = [one for one in threading.enumerate() if one.name.startswith(("immure-channel", "Thread-"))]
    return sum(1 for _ in Path("/proc/self/fd").iterdir()), len(threads)


@contextmanager
def playing(part: Callable[[], None]) -> Iterator[None]:
    """The guest's part, beside what its caller does. What it raises is raised in the end."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            part()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="guest")
    thread.start()
    try:
        yield
    finally:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    if failures:
        raise failures[0]
