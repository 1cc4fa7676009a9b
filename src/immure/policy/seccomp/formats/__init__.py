"""Profiles in the forms of others: what Docker, Podman and Kubernetes write, what runtimes and systemd read.

read_any(text, name="profile.yaml", bases={})        # any of them → Profile
to_oci(profile)                                      # → JSON
to_systemd(profile, arch="x86_64", capabilities=frozenset(), kernel=(6, 1)).text
"""

from __future__ import annotations

from .oci import to_oci
from .read import read_any, read_named
from .systemd import SystemdUnit, to_systemd

__all__ = ["SystemdUnit", "read_any", "read_named", "to_oci", "to_systemd"]
