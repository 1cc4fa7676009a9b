"""A machine that goes on in another process of this host."""

from __future__ import annotations

from immure.engine.session import Measured, measure
from immure.engine.spawners import spawner_for
from immure.errors import RuntimeUnavailable
from immure.runtimes.base import Box
from immure.runtimes.guest.migration import Migration


def migrate_box(box: Box) -> tuple[Migration, Measured]:
    """Moves it, and measures it where it is now: one that is below its level there is ended.

    Raises RuntimeUnavailable for a box that is no machine, SetupFailed where it stays, LevelNotReached and BoxLost.
    """
    # A runtime that boxes of others don't need.
    from immure.runtimes.qemu.box import QemuBox

    if not isinstance(box, QemuBox):
        raise RuntimeUnavailable(
            "this box can't be moved",
            need="a virtual machine of QEMU's",
            have=f"the runtime {box.launch.runtime}",
            hint='runtime="qemu"',
        )
    moved = box.migrate(spawner_for(box.launch))
    try:
        return moved, measure(box)
    except BaseException:
        box.close()
        raise
