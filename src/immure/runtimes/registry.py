"""Which runtime carries a launch. Each is imported when it is first needed; standard library only: a hot path."""

from __future__ import annotations

from immure.plan.launch import Launch
from immure.runtimes.process.box import Box as ProcessBox
from immure.runtimes.process.spawner import Spawner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from immure.runtimes.base import Box
    from immure.runtimes.guest.adopted import Adopts


def open_box(
    spawner: Spawner,
    launch: Launch,
    *,
    sources: list[int] | None = None,
    in_loop: bool = False,
    adopts: Adopts | None = None,
) -> Box:
    """A box for many commands, which is under way. `in_loop`: a running event loop is to see to its channel; `adopts`:
    it is restored.
    """
    if not launch.carrier:
        return ProcessBox(spawner, launch, one_shot=False, sources=sources)
    if in_loop:
        from immure.channel.aio import LoopDriver as Driver
    else:
        from immure.channel.blocking import ThreadDriver as Driver
    if launch.runtime == "qemu":
        from immure.runtimes.qemu.box import QemuBox

        return QemuBox(spawner, launch, drive=Driver, sources=sources, adopts=adopts)
    if launch.runtime == "firecracker":
        from immure.runtimes.firecracker.box import FirecrackerBox

        return FirecrackerBox(spawner, launch, drive=Driver, sources=sources, adopts=adopts)
    from immure.runtimes.gvisor.box import GVisorBox

    return GVisorBox(spawner, launch, drive=Driver, sources=sources, adopts=adopts)
