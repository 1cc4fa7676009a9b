"""The launch of a box that goes on from where another stood. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from immure.plan.bundle import BUNDLE
from immure.plan.firecracker import CONFIG, MEMORY, STATE
from immure.plan.gvisor import CONTAINER, SNAPSHOT, runsc_options
from immure.plan.launch import Launch
from immure.plan.operations import NODEV, NOEXEC, NOSUID, RDONLY, UserMount


def restoring_launch(launch: Launch, image: str) -> Launch:
    """The same box, begun by the image in a folder of this host in place of its bundle's first process."""
    other = Launch.from_tuple(launch.to_tuple())
    mount = UserMount(source=image, path=SNAPSHOT, attributes=RDONLY | NOSUID | NODEV | NOEXEC)
    wire: dict[str, Any] = msgspec.msgpack.decode(launch.wire)
    wire["root"] = [*wire["root"], mount]
    other.wire = msgspec.msgpack.encode(wire)
    other.plan_sha256 = hashlib.sha256(other.wire).hexdigest()
    other.sources = (*launch.sources, (image, "folder"))
    restore = ("restore", "--detach", f"--image-path={SNAPSHOT}", f"--bundle={BUNDLE}", CONTAINER)
    other.carrier = (*runsc_options(launch.carrier), *restore)
    return other


def copied_launch(launch: Launch) -> Launch:
    """The same box in a machine that goes on from a copy of one, which comes as descriptors.

    It needs nothing then of the machine that had booted, which need not be there any more.
    """
    if launch.booted:
        other = Launch.from_tuple(launch.to_tuple())
        other.booted = ()
        other.programs = tuple(one for one in launch.programs if one[0] not in launch.booted)
        return other
    wire: dict[str, Any] = msgspec.msgpack.decode(launch.wire)
    places = {MEMORY[1:], STATE[1:]}
    left_out = [op for op in wire["template"] if op.get("path") in places]
    if not left_out and CONFIG not in launch.carrier:
        return launch
    other = Launch.from_tuple(launch.to_tuple())
    wire["template"] = [op for op in wire["template"] if op not in left_out]
    wire["template_key"] = hashlib.sha256(wire["template_key"] + b"copied").digest()
    other.wire = msgspec.msgpack.encode(wire)
    other.plan_sha256 = hashlib.sha256(other.wire).hexdigest()
    booted = {op.get("source") for op in left_out}
    other.programs = tuple(one for one in launch.programs if one[0] not in booted)
    if CONFIG in launch.carrier:
        other.carrier = launch.carrier[: launch.carrier.index(CONFIG) - 1]
    return other
