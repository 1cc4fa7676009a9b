"""The system call filter that every contender behind walls installs: ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bench.build import BUILD


@dataclass(frozen=True)
class Filters:
    """The path of a packed array of `struct sock_filter`, and what to call it in the report."""

    program: Path
    title: str


def write_filters() -> Filters:
    """The default profile and the guard in one program, as a box has them."""
    from immure.policy.seccomp import compile_filter, guard_profile, load_preset

    program = compile_filter(load_preset("default"), beside=guard_profile()).to_bytes()
    return Filters(_store("default", program), f"default profile and guard ({len(program) // 8} instructions)")


def _store(name: str, code: bytes) -> Path:
    BUILD.mkdir(exist_ok=True)
    path = BUILD / f"{name}-{hashlib.sha256(code).hexdigest()[:16]}.bpf"
    if not path.exists():
        path.write_bytes(code)
    return path
