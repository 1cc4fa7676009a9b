"""Boxes without namespaces, for hosts that refuse them: a filter, no privileges, and Landlock on the host's own paths.

They reach L1. What they lack is said clause by clause.
"""

from __future__ import annotations

from immure.errors import SpecError
from immure.host.facts import OWN_ID_IS_ROOT, HostFacts, SourceFacts
from immure.plan.report import Clause
from immure.plan.root import mount_path
from immure.policy.landlock import DEVICES, FILE_RIGHTS, READ, WRITE, Fs, handled_tcp
from immure.spec.models import SandboxSpec

#: A file that every Linux has, that every user may read, and that no rule covers.
BARE_SENTINEL = "/proc/version"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def is_bare(spec: SandboxSpec, facts: HostFacts) -> bool:
    """Whether the box is made without namespaces: asked for, or refused here and opted down."""
    if spec.processes.namespaces == "none":
        return True
    refused = facts.user_namespaces is not None or facts.new_proc is not None or facts.own_id_is_host_root
    return refused and spec.level == "L1" and spec.protections.get("namespaces") == "best_effort"


def bare_rules(spec: SandboxSpec, facts: HostFacts, sources: tuple[SourceFacts, ...]) -> tuple[tuple[str, Fs], ...]:
    """What is allowed of the host: the allowlist of `image: host`, and mounts that need not be moved.

    Raises SpecError for an image of its own, for a mount whose target is not its source, and for a tmpfs.
    """
    if spec.image != "host":
        raise SpecError(
            "an image can't be shown without a mount namespace",
            path="$.spec.image",
            need="host, or a box with namespaces",
            have=repr(spec.image),
        )
    rules: list[tuple[str, Fs]] = [(folder, READ) for folder in facts.image.folders]
    rules += [(path, READ & FILE_RIGHTS & ~Fs.EXECUTE) for path in facts.image.copies]
    rules += [(path, DEVICES & FILE_RIGHTS) for path in _DEVICES]
    kinds = iter(sources)
    for index, mount in enumerate(spec.files.mounts):
        source = next(kinds) if mount.tmpfs is None else None
        if source is None or source.path != mount_path(mount):
            raise SpecError(
                "a mount can't be moved without a mount namespace",
                path=f"$.spec.files.mounts[{index}]",
                need="a target that is the source's own path",
                have=mount.tmpfs or f"{mount.source} on {mount.target}",
            )
        access = WRITE if mount.access == "rw" else READ
        rules.append((source.path, access & FILE_RIGHTS if source.kind == "file" else access))
    return tuple(rules)


def bare_clauses(spec: SandboxSpec, facts: HostFacts) -> tuple[Clause, ...]:
    """What a box without namespaces does not have."""
    missing = facts.user_namespaces or facts.new_proc or (OWN_ID_IS_ROOT if facts.own_id_is_host_root else None)
    why = f"{missing.need}: {missing.have}" if missing is not None else "asked for"
    user = "an id of its own" if facts.switches_user else "the caller's id"
    return (
        Clause(
            clause="processes.namespaces",
            wanted=spec.processes.namespaces,
            got="exact" if spec.processes.namespaces == "none" else "unenforceable",
            by="nothing",
            why=why,
        ),
        _network_clause(spec, facts, why),
        Clause(
            clause="processes.user",
            wanted=str(spec.processes.user),
            got="approximated",
            by=user,
            why="without a user namespace the host's permissions apply",
        ),
        Clause(
            clause="limits.disk_mib",
            wanted="private space",
            got="unenforceable",
            by="nothing",
            why="without a mount namespace there is no private space; mount a folder rw",
        ),
    )


def _network_clause(spec: SandboxSpec, facts: HostFacts, why: str) -> Clause:
    clause, wanted = "network.mode", spec.network.mode
    if wanted == "host":
        return Clause(clause=clause, wanted=wanted, got="exact", by="the host's network")
    if spec.files.landlock == "auto" and handled_tcp(facts.landlock_abi):
        why = "UDP, ICMP and unix sockets are the host's"
        return Clause(clause=clause, wanted=wanted, got="approximated", by="Landlock denies TCP", why=why)
    return Clause(clause=clause, wanted=wanted, got="unenforceable", by="nothing", why=why)
