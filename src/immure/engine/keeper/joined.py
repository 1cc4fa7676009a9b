"""A kept box, as another process than its keeper has it.

Standard library only, and little of that: `immure exec` goes through here.
"""

from __future__ import annotations

import _socket

from immure.engine.keeper.client import ask
from immure.engine.session import Measured, judge_items
from immure.errors import ImmureError
from immure.plan.launch import Launch
from immure.runtimes.process.cgroups import oom_kills
from immure.runtimes.process.spawner import Socket
from immure.runtimes.process.stem import Stem

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from typing import Any


class KeptStem(Stem):
    """The stem's socket is ours; the box is not."""

    def __init__(self, launch: Launch, stem: Socket, name: str) -> None:
        super().__init__(launch, stem)
        self._name = name

    def give_back(self, asker: Socket) -> None:
        """Behind a channel each command has a socket of its own."""
        if self.launch.carrier:
            asker.close()
        else:
            super().give_back(asker)

    def resized(self, asker: Socket, columns: int, rows: int) -> None:
        """Tells a terminal that is behind a channel."""
        if self.launch.carrier:
            from immure.runtimes.guest.relay import tell_size

            tell_size(asker, columns, rows)

    def kill(self) -> None:
        """Has the keeper end it."""
        try:
            ask("kill", {"name": self._name})
        except ImmureError:
            # It is gone.
            pass


class Joined:
    """What a keeper says of a box, and its stem, to be closed with `stem.leave()`."""

    def __init__(self, value: dict[str, Any], fds: list[int]) -> None:
        (fd,) = fds
        launch = Launch.from_tuple(value["launch"])
        items = value["items"]
        self.name, self.id = value["name"], value["id"]
        self.stem = KeptStem(launch, _socket.socket(fileno=fd), self.name)
        self.stem.pid = value["pid"]
        self.measured = Measured(launch, items, judge_items(items, launch, value["namespaces"]))
        self._cgroup = items.get("cgroup.name")
        self._oom_kills = oom_kills(launch, self._cgroup)

    def oom_kills(self) -> int:
        """The kernel's kills for memory since we have it."""
        return oom_kills(self.stem.launch, self._cgroup) - self._oom_kills


def join(name: str) -> Joined:
    """The kept box of this name. Raises BoxLost where there is none."""
    return Joined(*ask("join", {"name": name}))
