"""Evidence as users get it."""

from __future__ import annotations

import hashlib
from typing import Literal

from msgspec import Struct

from immure.evidence.levels import award, boundary_of, capped_by, has_hardware
from immure.evidence.readback import Finding, held_parts
from immure.plan.launch import Launch


class Part(Struct, frozen=True):
    """One part of the boundary, as it was measured."""

    part: str
    held: bool
    observed: str
    why: str


class HostReadback(Struct, frozen=True):
    """What the kernel said of the witness. `seccomp_sha256` is None where `seccomp_why` says so."""

    uid_map: str
    gid_map: str
    namespaces: dict[str, int]
    seccomp_sha256: str | None
    seccomp_why: str
    no_new_privs: bool
    capabilities: dict[str, str]
    cgroup: str


class Evidence(Struct, frozen=True):
    """What was measured of a box, and the level that it comes to (schema `immure.evidence/v1`)."""

    schema: str
    box: str
    plan_sha256: str
    host_sha256: str
    taken: Literal["before_first_command", "after"]
    boundary: Literal["kernel", "user_kernel", "vm"]
    accelerated: bool
    hardware: bool
    mac: str | None
    host: HostReadback
    parts: tuple[Part, ...]
    awarded: str
    capped_by: tuple[str, ...]


def make_evidence(
    box: str, launch: Launch, items: dict[str, bytes], findings: tuple[Finding, ...], *, restored: bool = False
) -> Evidence:
    """The evidence of a box, taken before its first command; in one that was `restored`, others may have run before."""
    held = held_parts(findings)
    boundary = boundary_of(held)
    hardware = has_hardware(held)
    return Evidence(
        schema="immure.evidence/v1",
        box=box,
        plan_sha256=launch.plan_sha256,
        host_sha256=launch.host_sha256,
        taken="after" if restored else "before_first_command",
        boundary=boundary,
        accelerated=hardware,
        hardware=hardware,
        mac=launch.mac if "files.mac" in held else None,
        host=_host_readback(items, launch),
        parts=tuple(Part(part=one.part, held=one.held, observed=one.observed, why=one.why) for one in findings),
        awarded=award(held, boundary, hardware=hardware),
        capped_by=tuple(capped_by(held)),
    )


def _host_readback(items: dict[str, bytes], launch: Launch) -> HostReadback:
    def text(name: str) -> str:
        return items.get(name, b"").decode("utf-8", "replace").strip()

    status = dict(line.split(":\t", 1) for line in text("status").splitlines() if ":\t" in line)
    filters = [items[name] for name in sorted(items) if name.startswith("filter/") and not name.endswith(".errno")]
    digest = hashlib.sha256(b"".join(filters)).hexdigest() if filters else None
    return HostReadback(
        uid_map=text("uid_map"),
        gid_map=text("gid_map"),
        namespaces={
            name.removeprefix("ns/"): int.from_bytes(value, "little")
            for name, value in items.items()
            if name.startswith("ns/") and not name.endswith(".errno")
        },
        seccomp_sha256=digest,
        seccomp_why="" if digest else _why_no_filter(launch),
        no_new_privs=status.get("NoNewPrivs") == "1",
        capabilities={name: value for name, value in status.items() if name.startswith("Cap")},
        cgroup=text("cgroup"),
    )


def _why_no_filter(launch: Launch) -> str:
    if launch.runtime == "gvisor":
        return "the filter is installed in the Sentry; its own is a part of kernel.user_space"
    return "the kernel shows filters to root alone (PTRACE_SECCOMP_GET_FILTER)"
