"""A channel for an event loop, which steps its pump between other things."""

from __future__ import annotations

import asyncio

from immure.channel.pump import Pump


class LoopDriver:
    """Steps a pump in the running loop until its channel is over. Works with any loop that has add_reader."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pump.fileno(), self._step)

    def _step(self) -> None:
        self._pump.step()
        if self._pump.is_over:
            self.close()

    def close(self) -> None:
        """Steps it no more."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._pump.fileno())
