"""The system call filters that every contender behind walls installs: the same two of ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bench.build import BUILD


@dataclass(frozen=True)
class Filters:
    """Paths of packed `struct sock_filter` arrays, and what to call them in the report."""

    guard: Path
    profile: Path
    title: str


def write_filters() -> Filters:
    from immure.policy.seccomp import compile_filter, guard_profile, load_preset

    guard = compile_filter(guard_profile()).to_bytes()
    profile = compile_filter(load_preset("default")).to_bytes()
    title = f"guard ({len(guard) // 8} instructions) and default profile ({len(profile) // 8})"
    return Filters(_store("guard", guard), _store("profile", profile), title)


def _store(name: str, code: bytes) -> Path:
    BUILD.mkdir(exist_ok=True)
    path = BUILD / f"{name}-{hashlib.sha256(code).hexdigest()[:16]}.bpf"
    if not path.exists():
        path.write_bytes(code)
    return path
