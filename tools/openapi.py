"""The description of the daemon's API, as docs/ has it and as the daemon itself gives it."""

from __future__ import annotations

import msgspec

from immure.daemon.app import make_app
from immure.daemon.machines import Machines
from immure.runtimes.firecracker.programs import Programs


def openapi() -> str:
    """OpenAPI 3.1, as JSON."""
    described = make_app(Machines(Programs("", ""), "")).openapi_schema.to_schema()
    return msgspec.json.format(msgspec.json.encode(described, order="sorted"), indent=2).decode() + "\n"
