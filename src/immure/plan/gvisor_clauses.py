"""The clauses of a plan with gVisor: what a Sentry does otherwise than this host's kernel is said in each. Pure."""

from __future__ import annotations

from immure.host.facts import HostFacts, ProgramFacts
from immure.plan.report import Clause
from immure.spec.models import SandboxSpec


def gvisor_clauses(spec: SandboxSpec, facts: HostFacts, runsc: ProgramFacts, keep: int) -> tuple[Clause, ...]:
    """A clause for each thing that the spec asks for, limits aside."""
    profile = spec.syscalls.profile
    user = str(spec.processes.user)
    return (
        Clause(
            clause="syscalls.profile",
            wanted=profile if isinstance(profile, str) else "inline",
            got="exact",
            by=f"seccomp in the Sentry of runsc {runsc.version}, which has a filter of its own on the host",
        ),
        Clause(
            clause="files.landlock",
            wanted=spec.files.landlock,
            got="approximated",
            by="the Sentry's mounts: its gofer opens what is in the bundle, and nothing else of the host",
            why="gVisor has no Landlock: a folder's rights are those of its mount, and nothing is denied below it",
        ),
        Clause(
            clause="network.mode",
            wanted=spec.network.mode,
            got="exact",
            by="the Sentry's own network stack with lo, in a network namespace of its own"
            if spec.network.mode == "none"
            else "the host's network, through the Sentry",
        ),
        Clause(
            clause="processes.namespaces",
            wanted=spec.processes.namespaces,
            got="stronger",
            by="the Sentry's kernel, in an outer box with all namespaces",
        ),
        Clause(
            clause="processes.capabilities",
            wanted=" ".join(spec.processes.capabilities.add) or "none",
            got="stronger",
            by=f"capability sets {keep:#x} in the Sentry, which mean nothing to this host",
        ),
        Clause(clause="processes.user", wanted=user, got="exact", by=_user_by(facts)),
        *_mount_clauses(spec),
    )


def _user_by(facts: HostFacts) -> str:
    if facts.ids.kind == "ranges":
        return f"a user of the Sentry, whose files are those of a range of {facts.ids.size} ids of its own"
    return "a user namespace in the Sentry, which shows the caller's id, the only one that is mapped"


def _mount_clauses(spec: SandboxSpec) -> list[Clause]:
    clauses: list[Clause] = []
    for index, mount in enumerate(spec.files.mounts):
        what = f"tmpfs {mount.tmpfs}" if mount.tmpfs else f"{mount.source} {mount.target} {mount.access}"
        by = "the Sentry's own memory" if mount.tmpfs else "the gofer, on a mount of the outer box"
        clauses.append(Clause(clause=f"files.mounts[{index}]", wanted=what, got="exact", by=by))
    return clauses
