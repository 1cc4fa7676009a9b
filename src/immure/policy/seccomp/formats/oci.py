"""`Profile` → the JSON that OCI runtimes, Docker and Podman read."""

from __future__ import annotations

import msgspec

from immure.policy.seccomp.profile import Profile


def to_oci(profile: Profile) -> bytes:
    """`profile` as JSON that reads back as the same profile.

    The keys stand in the models' order, so that equal profiles give equal bytes. Nothing is resolved: keys of
    Docker and Podman that the runtime-spec lacks (`archMap`, `includes`, `errno`) stay what they are.
    """
    return msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n"
