"""What a virtual machine goes on from."""

from __future__ import annotations

import os

#: The two files of a machine that has booted.
MEMORY_FILE, STATE_FILE = "memory", "state"


class MachineCopy:
    """A machine as it stood. It owns its descriptors: `state` is a file of its devices, and of its memory too where
    there is no `memory`, which is a sealed file; `disk` is what was on its own disk, if it has one.
    """

    def __init__(self, state: int, memory: int | None) -> None:
        self.state, self.memory = state, memory
        self.disk: int | None = None

    def close(self) -> None:
        """Lets go of it. Machines that were made of it go on."""
        fds, self.state, self.memory, self.disk = (self.state, self.memory, self.disk), -1, None, None
        for fd in fds:
            if fd is not None and fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        self.close()
