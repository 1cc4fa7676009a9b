"""The launch of a box that is restored from an image of its Sentry. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from immure.plan.bundle import BUNDLE
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
