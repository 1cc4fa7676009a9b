"""A channel for an event loop, which steps its pump between other things."""

from __future__ import annotations

import asyncio

from immure.channel.pump import Pump

_STEP_S = 0.05


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
        """Waits for the channel's end, and steps it no more. In the loop's own thread, which does nothing else then."""
        while not self._pump.is_over:
            self._pump.step(_STEP_S)
        if not self._pump.is_closed:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._pump.fileno())
            self._pump.close()
