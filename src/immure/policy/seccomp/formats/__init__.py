"""Profiles in the forms of others: what Docker, Podman and Kubernetes write, what runtimes read.

read_any(text, name="profile.yaml", bases={})        # any of them → Profile
to_oci(profile)                                      # → JSON
"""

from __future__ import annotations

from .oci import to_oci
from .read import read_any

__all__ = ["read_any", "to_oci"]
