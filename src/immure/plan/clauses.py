"""The clauses of a plan's report, apart from limits: what was wanted, and what it comes to on this host."""

from __future__ import annotations

from immure.host.facts import HostFacts
from immure.plan.operations import Landlock
from immure.plan.report import Clause
from immure.policy import landlock
from immure.spec.models import SandboxSpec


def spec_clauses(
    spec: SandboxSpec, facts: HostFacts, ruleset: Landlock | None, keep: int, *, bare: bool = False
) -> list[Clause]:
    """A clause for each thing that the spec asks for, limits aside."""
    profile = spec.syscalls.profile
    clauses = [
        Clause(
            clause="syscalls.profile",
            wanted=profile if isinstance(profile, str) else "inline",
            got="exact",
            by="seccomp",
        ),
        _landlock_clause(spec, facts, ruleset),
    ]
    if bare:
        return clauses + _mount_clauses(spec, "Landlock on the host's own path")
    clauses += [
        Clause(clause="network.mode", wanted=spec.network.mode, got="exact", by=_network_by(spec)),
        Clause(clause="processes.namespaces", wanted=spec.processes.namespaces, got="exact", by="clone"),
        Clause(
            clause="processes.capabilities",
            wanted=" ".join(spec.processes.capabilities.add) or "none",
            got="exact",
            by=f"capability sets {keep:#x} in the box's own user namespace",
        ),
        *_identity_clauses(spec, facts),
    ]
    return clauses + _mount_clauses(spec, _mount_by(facts))


def _mount_clauses(spec: SandboxSpec, by: str) -> list[Clause]:
    clauses: list[Clause] = []
    for index, mount in enumerate(spec.files.mounts):
        what = f"tmpfs {mount.tmpfs}" if mount.tmpfs else f"{mount.source} {mount.target} {mount.access}"
        clauses.append(Clause(clause=f"files.mounts[{index}]", wanted=what, got="exact", by=by))
    return clauses


def _mount_by(facts: HostFacts) -> str:
    return "idmapped mount" if facts.root else "bind mount"


def _network_by(spec: SandboxSpec) -> str:
    return "network namespace with lo" if spec.network.mode == "none" else "the host's network"


def _landlock_clause(spec: SandboxSpec, facts: HostFacts, ruleset: Landlock | None) -> Clause:
    clause = "files.landlock"
    if spec.files.landlock == "off":
        return Clause(clause=clause, wanted="off", got="exact", by="nothing to do")
    if ruleset is None:
        return Clause(
            clause=clause,
            wanted="auto",
            got="unenforceable",
            by="nothing",
            why="this kernel has no Landlock; best effort was asked for",
        )
    why = "does not cover " + "; ".join(landlock.uncovered(facts.landlock_abi))
    got = "exact" if facts.landlock_abi >= landlock.LEAST_ABI else "approximated"
    return Clause(clause=clause, wanted="auto", got=got, by=f"landlock/{facts.landlock_abi}", why=why)


def _identity_clauses(spec: SandboxSpec, facts: HostFacts) -> list[Clause]:
    user = str(spec.processes.user)
    if facts.ids.kind == "ranges":
        return [
            Clause(
                clause="processes.user",
                wanted=user,
                got="exact",
                by=f"a range of {facts.ids.size} ids of its own",
            )
        ]
    clauses = [Clause(clause="processes.user", wanted=user, got="exact", by="the caller's id, and no other is mapped")]
    if set(facts.groups) - {facts.gid}:
        clauses.append(
            Clause(
                clause="processes.groups",
                wanted="none",
                got="approximated",
                by="an unmapped group list",
                why="with one id the kernel refuses setgroups, so the caller's supplementary groups still open files",
            )
        )
    return clauses
