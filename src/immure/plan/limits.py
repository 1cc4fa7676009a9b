"""Limits: what is written, what the default is, and which mechanism of this host carries it.

A limit that was written is required; a default is best effort, and the report says what became of it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from msgspec import Struct

from immure.errors import ProtectionUnavailable
from immure.host.facts import CgroupParent, HostFacts
from immure.plan.operations import CgroupLimit
from immure.plan.report import Clause
from immure.spec.models import SandboxSpec

DEFAULT_MEMORY_MIB = 1024
DEFAULT_PIDS = 512
DEFAULT_DISK_MIB = 1024
DEFAULT_OUTPUT_MIB = 16
_CPU_PERIOD_US = 100_000
RLIMIT_FSIZE, RLIMIT_CORE, RLIMIT_NPROC = 1, 4, 6
_DELEGATE = "delegate one (systemd-run --user --scope -p Delegate=yes …; see Cgroups in docs/host-setup.md)"
_UNCOUNTED = "this kernel does not count what goes to swap (swapaccount=1 on its command line)"
#: What a kernel in user space may have on this host: a process and its threads for each of its own, and for itself.
_HOST_PROCESSES_PER_PID, _HOST_PROCESSES = 4, 256


class LimitPlan(Struct, frozen=True):
    """What the limits of one spec come to on one host."""

    cgroup: tuple[CgroupLimit, ...]
    rlimits: tuple[tuple[int, int, int], ...]
    clauses: tuple[Clause, ...]


def own_processes(*, bare: bool) -> int:
    """How many of our processes stand in a box's cgroup: its init, or its supervisor and stem."""
    return 2 if bare else 1


def plan_limits(spec: SandboxSpec, facts: HostFacts, *, bare: bool = False, inside: bool = False) -> LimitPlan:
    """`inside` is for boxes with a kernel of their own, which counts their processes; the host sees others.

    Raises ProtectionUnavailable for a written limit that this host can't enforce.
    """
    written = {"memory": spec.limits.memory_mib, "cpu": spec.limits.cpus, "pids": spec.limits.pids}
    parents = choose_parents(facts.cgroups, {name for name, value in written.items() if value is not None})
    memory, memory_clause = _memory(spec, facts, parents)
    cpus, cpus_clause = _cpus(spec, facts, parents)
    own = own_processes(bare=bare)
    pids, pids_clause = _pids_within(spec, parents) if inside else _pids(spec, parents, own)
    nproc = spec.limits.pids or DEFAULT_PIDS
    if facts.ids.kind == "single":
        # The guest's own user is the commands'.
        nproc += own
    if facts.nproc_hard is not None:
        nproc = min(nproc, facts.nproc_hard)
    return LimitPlan(
        cgroup=(*memory, *cpus, *pids),
        rlimits=((RLIMIT_CORE, 0, 0), (RLIMIT_NPROC, nproc, nproc)),
        clauses=(memory_clause, cpus_clause, pids_clause, *_host_limits(spec, inside)),
    )


def choose_parents(parents: tuple[CgroupParent, ...], needed: AbstractSet[str]) -> dict[str, CgroupParent]:
    """Where the cgroup of each controller is made. On v2 a box is in one cgroup: in the nearest that passes on most of
    what is needed. Those further up are bounded by less than we are, so nothing goes there that need not.
    """
    chosen = {name: parent for parent in parents if parent.version == 1 for name in parent.controllers}
    unified = [parent for parent in parents if parent.version == 2]
    if unified:
        left = needed - chosen.keys()
        # The first of equals.
        one = max(unified, key=lambda parent: len(left & set(parent.controllers)))
        for name in one.controllers:
            chosen.setdefault(name, one)
    return chosen


def _memory(
    spec: SandboxSpec, facts: HostFacts, parents: dict[str, CgroupParent]
) -> tuple[tuple[CgroupLimit, ...], Clause]:
    written = spec.limits.memory_mib
    clause = "limits.memory_mib"
    wanted = str(written or f"{DEFAULT_MEMORY_MIB} (default)")
    size = str((written or DEFAULT_MEMORY_MIB) << 20)
    parent = parents.get("memory")
    if parent is not None and (written is not None or parent.version == 2):
        limits = _memory_limits(parent, size)
        by = f"cgroup v{parent.version} {limits[0].file}"
        if parent.swap == "uncounted":
            return limits, Clause(clause=clause, wanted=wanted, got="approximated", by=by, why=_UNCOUNTED)
        return limits, Clause(clause=clause, wanted=wanted, got="exact", by=by)
    why = _why_not(spec, facts, "memory", written, parent)
    return (), Clause(clause=clause, wanted=wanted, got="unenforceable", by="nothing", why=why)


def _memory_limits(parent: CgroupParent, size: str) -> tuple[CgroupLimit, ...]:
    """With nothing swapped: v2 bounds swap by itself, v1 the sum of both, which may not be below the memory's bound."""
    if parent.version == 2:
        limit, swap = ("memory.max", size), ("memory.swap.max", "0")
    else:
        limit, swap = ("memory.limit_in_bytes", size), ("memory.memsw.limit_in_bytes", size)
    files = (limit, swap) if parent.swap == "limited" else (limit,)
    return tuple(CgroupLimit(parent=parent.path, file=file, value=value) for file, value in files)


def _cpus(
    spec: SandboxSpec, facts: HostFacts, parents: dict[str, CgroupParent]
) -> tuple[tuple[CgroupLimit, ...], Clause]:
    written = spec.limits.cpus
    clause = "limits.cpus"
    if written is None:
        return (), Clause(clause=clause, wanted="no limit (default)", got="exact", by="nothing to do")
    quota = max(1000, int(written * _CPU_PERIOD_US))
    parent = parents.get("cpu")
    if parent is None:
        why = _why_not(spec, facts, "cpus", written, parent)
        return (), Clause(clause=clause, wanted=str(written), got="unenforceable", by="nothing", why=why)
    if parent.version == 2:
        limits = (CgroupLimit(parent=parent.path, file="cpu.max", value=f"{quota} {_CPU_PERIOD_US}"),)
    else:
        limits = (
            CgroupLimit(parent=parent.path, file="cpu.cfs_period_us", value=str(_CPU_PERIOD_US)),
            CgroupLimit(parent=parent.path, file="cpu.cfs_quota_us", value=str(quota)),
        )
    return limits, Clause(clause=clause, wanted=str(written), got="exact", by=f"cgroup v{parent.version} CPU quota")


def _pids(spec: SandboxSpec, parents: dict[str, CgroupParent], own: int) -> tuple[tuple[CgroupLimit, ...], Clause]:
    written = spec.limits.pids
    clause = "limits.pids"
    wanted = str(written or f"{DEFAULT_PIDS} (default)")
    parent = parents.get("pids")
    if parent is not None and (written is not None or parent.version == 2):
        count = (written or DEFAULT_PIDS) + own
        limit = CgroupLimit(parent=parent.path, file="pids.max", value=str(count))
        return (limit,), Clause(clause=clause, wanted=wanted, got="exact", by=f"cgroup v{parent.version} pids.max")
    return (), Clause(
        clause=clause,
        wanted=wanted,
        got="approximated",
        by="RLIMIT_NPROC",
        why="counts the processes and threads of one user of the box",
    )


def _pids_within(spec: SandboxSpec, parents: dict[str, CgroupParent]) -> tuple[tuple[CgroupLimit, ...], Clause]:
    """Of a kernel in user space: it counts its processes, and this host all that it takes for them."""
    _, clause = _pids(spec, {}, 0)
    limits, around = _pids(spec, parents, 0)
    if not limits:
        return (), clause
    most = _HOST_PROCESSES_PER_PID * (spec.limits.pids or DEFAULT_PIDS) + _HOST_PROCESSES
    limit = CgroupLimit(parent=limits[0].parent, file="pids.max", value=str(most))
    why = f"{clause.why}; on this host all of it is bounded at {most}"
    by = f"RLIMIT_NPROC in the Sentry, {around.by} around it"
    return (limit,), Clause(clause=clause.clause, wanted=clause.wanted, got="approximated", by=by, why=why)


def _disk_clause(spec: SandboxSpec, inside: bool) -> Clause:
    wanted = str(spec.limits.disk_mib or f"{DEFAULT_DISK_MIB} (default)")
    if not inside:
        return Clause(clause="limits.disk_mib", wanted=wanted, got="exact", by="tmpfs size")
    return Clause(
        clause="limits.disk_mib",
        wanted=wanted,
        got="stronger",
        by="tmpfs sizes in the Sentry",
        why="/tmp, /dev/shm and each tmpfs have a part of it each, and can't take what the others leave",
    )


def _host_limits(spec: SandboxSpec, inside: bool) -> tuple[Clause, ...]:
    """Limits that the host's side enforces by itself."""
    return (_disk_clause(spec, inside), *own_limits(spec))


def own_limits(spec: SandboxSpec) -> tuple[Clause, ...]:
    """Those that no box has a part in."""
    limits = spec.limits
    return (
        Clause(
            clause="limits.timeout_s",
            wanted=str(limits.timeout_s or "none (default)"),
            got="exact",
            by="the host's clock",
        ),
        Clause(
            clause="limits.output_mib",
            wanted=str(limits.output_mib or f"{DEFAULT_OUTPUT_MIB} where captured (default)"),
            got="exact",
            by="counted by the reader",
        ),
    )


def _why_not(spec: SandboxSpec, facts: HostFacts, name: str, written: object, parent: CgroupParent | None) -> str:
    have = "no writable cgroup of this controller" + (f": {facts.no_cgroups}" if facts.no_cgroups else "")
    if written is None:
        if parent is None:
            return f"{have}; a default is best effort"
        return "joining a cgroup v1 costs milliseconds, so only a written limit makes one"
    if dict(spec.protections).get(name) == "best_effort":  # type: ignore[arg-type]
        return f"{have}; best effort was asked for"
    raise ProtectionUnavailable(
        f"limits.{'memory_mib' if name == 'memory' else name}",
        need=f"a cgroup with the {'cpu' if name == 'cpus' else name} controller that this user can write",
        have=have,
        hint=f"{_DELEGATE}, or pass --best-effort {name}",
    )
