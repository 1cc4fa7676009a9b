"""A box that a keeper holds, and the commands that it attends itself since nobody waits for them."""

from __future__ import annotations

import os
import threading
from time import time
from typing import Any

from immure.engine.process import Process
from immure.engine.result import Result
from immure.engine.sandbox import Sandbox
from immure.engine.session import own_namespaces
from immure.engine.tracing import Wanted, begin_session
from immure.errors import BoxError, BoxLost, ImmureError
from immure.plan.launch import Launch
from immure.runtimes.guest.box import GuestBox
from immure.runtimes.guest.stem_face import StemFace
from immure.runtimes.gvisor.session import SentrySession
from immure.runtimes.process.box import Box as ProcessBox
from immure.runtimes.process.spawner import Socket

#: Of commands in the background: how many may run at once, and how many of those that have ended are remembered.
_MOST = 100
_CHUNK = 1 << 16
#: What a kept box's log holds.
LOG_MIB = 4


class HeldBox(Sandbox):
    """A box whose launch was made by somebody else, who has opened its mounts' sources too."""

    def __init__(self, launch: Launch, name: str, sources: list[int]) -> None:
        self._begin(launch, name, LOG_MIB, sources)
        self.created_s = time()
        self._background: list[Background] = []
        self._face: StemFace | None = None

    def for_client(self) -> tuple[dict[str, Any], list[int]]:
        """What another process needs to have commands run in it, with the stem's socket, which stays ours.

        Raises BoxLost where it has ended.
        """
        if self.state == "failed":
            raise BoxLost(
                f"the box {self.name} has ended by itself", need="a box in use", hint=f"immure kill {self.name}"
            )
        value = {
            "id": self.id,
            "name": self.name,
            "launch": self._launch.to_tuple(),
            "items": self._measured.items,
            "namespaces": dict(own_namespaces()),
            "pid": self._box.pid,
        }
        return value, [self._stem_socket().fileno()]

    def _stem_socket(self) -> Socket:
        """On which a stem is asked, or what answers as one for a box behind a channel."""
        if isinstance(self._box, GuestBox):
            if self._face is None:
                self._face = StemFace(self._box)
            return self._face.socket
        assert isinstance(self._box, ProcessBox)
        return self._box.stem

    def session(self, wanted: Wanted) -> SentrySession:
        """A trace session of it, which has not begun. Raises as `Sandbox.trace`."""
        self._check_usable()
        return begin_session(self._box, self.level.awarded, wanted)

    def describe(self) -> dict[str, Any]:
        """The row of a list."""
        state = self.state
        newest = self._background[-1].describe() if self._background else None
        return {
            "name": self.name,
            "id": self.id,
            "level": self.level.awarded,
            "state": state,
            "created_s": self.created_s,
            "processes": self.stats().processes if state != "failed" else 0,
            "command": newest,
        }

    def start_background(self, argv: list[bytes], keywords: dict[str, Any]) -> int:
        """Starts a command that nobody waits for. Its number in the box's log. Raises as `Sandbox.start`."""
        if sum(one.runs for one in self._background) >= _MOST:
            raise BoxError("too many commands in the background", need=f"at most {_MOST} in one box")
        background = Background(argv, self.start(argv, **keywords))
        ended = [one for one in self._background if not one.runs]
        for forgotten in ended[:-_MOST]:
            self._background.remove(forgotten)
        self._background.append(background)
        return background.number

    def close(self) -> None:
        """As `Sandbox.close`; what it ran in the background has ended then."""
        super().close()
        for one in list(self._background):
            one.join()


class Background:
    """A command whose output is read by nobody but the log."""

    def __init__(self, argv: list[bytes], process: Process) -> None:
        self.argv = argv
        self.number = process.number
        self.result: Result | None = None
        self.failure: ImmureError | None = None
        self._process = process
        # Before another thread may wait, after which no stream can be asked for.
        streams = (process.stdout, process.stderr)
        self._threads = [threading.Thread(target=_drain, args=(one,), daemon=True) for one in streams]
        self._threads.append(threading.Thread(target=self._attend, daemon=True))
        for thread in self._threads:
            thread.start()

    @property
    def runs(self) -> bool:
        """Whether its end has not been heard."""
        return self.result is None and self.failure is None

    def _attend(self) -> None:
        for thread in self._threads[:-1]:
            thread.join()
        try:
            self.result = self._process.wait()
        except ImmureError as error:
            self.failure = error
        finally:
            self._process.close()

    def join(self) -> None:
        """Waits for its end."""
        for thread in self._threads:
            thread.join()

    def describe(self) -> dict[str, Any]:
        """What a list shows of it."""
        exit = self.result.exit if self.result is not None else None
        return {
            "number": self.number,
            "argv": [os.fsdecode(one) for one in self.argv],
            "state": "lost" if self.failure is not None else "running" if exit is None else exit.kind,
            "code": exit.code if exit is not None else None,
            "signal": exit.signal if exit is not None else None,
        }


def _drain(stream: Any) -> None:
    # The log has what was read.
    while stream.read1(_CHUNK):
        pass
