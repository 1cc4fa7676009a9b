"""A channel for callers that block: its pump runs on a thread of its own."""

from __future__ import annotations

import threading

from immure.channel.pump import Pump


class ThreadDriver:
    """Steps a pump until its channel is over."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._thread = threading.Thread(target=self._run, name="immure-channel", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._pump.is_over:
            self._pump.step(-1)
        self._pump.close()

    def close(self) -> None:
        """Waits for the channel's end."""
        if self._thread is not threading.current_thread():
            self._thread.join()
