"""A kept box's trace: its keeper has the Sentry report to a socket that it hands over."""

from __future__ import annotations

import os
import socket

from immure.engine.keeper.client import begin, lost, no_keeper
from immure.engine.tracing import Wanted


class KeptSession:
    """A session that the keeper has for as long as we are there."""

    def __init__(self, name: str, wanted: Wanted) -> None:
        arguments = {"name": name, "points": wanted.points, "context": wanted.context, "optional": wanted.optional}
        asked = begin("trace", arguments)
        if asked is None:
            raise no_keeper()
        self._asked = asked
        self._over = False
        try:
            answer = asked.answer()
            if answer is None:
                raise lost()
            (fd,) = answer[1]
            try:
                self.listening = socket.socket(fileno=fd)
            except BaseException:
                os.close(fd)
                raise
        except BaseException:
            asked.close()
            raise

    def begin(self) -> None:
        """Waits until the Sentry reports. Raises what the keeper raises."""
        if self._asked.answer() is None:
            raise lost()

    def end(self) -> int:
        """Ends it, and gives how many events the Sentry has dropped; harmless after the first time."""
        if self._over:
            return 0
        self._over = True
        try:
            self._asked.say_no_more()
            answer = self._asked.answer()
            return answer[0] if answer is not None else 0
        finally:
            self._asked.close()
