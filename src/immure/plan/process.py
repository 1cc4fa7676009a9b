"""The plan of a process box: namespaces, Landlock and seccomp; without namespaces where the host refuses them. Pure."""

from __future__ import annotations

from immure.errors import ProtectionUnavailable, SpecError
from immure.host.facts import HostFacts
from immure.plan.bare import BARE_SENTINEL, bare_clauses, bare_rules, is_bare
from immure.plan.checks import check_host
from immure.plan.clauses import spec_clauses
from immure.plan.image import SENTINEL, make_image
from immure.plan.limits import plan_limits
from immure.plan.model import NAMESPACES, Inputs, Plan, box_filters, host_sha256, kept_capabilities
from immure.plan.operations import CommandStage, Landlock, LandlockRule, Operation
from immure.plan.root import box_root, landlock_rules
from immure.policy import capabilities, landlock
from immure.spec.models import Level, SandboxSpec


def compile_process(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """The plan of a box of the process runtime. Raises SpecError and ProtectionUnavailable."""
    bare = is_bare(spec, facts)
    check_host(spec, facts, bare=bare)
    if bare:
        return _compile_bare(spec, facts, inputs)
    keep = kept_capabilities(spec, facts)
    own_network = bool(_namespaces(spec, keep) & NAMESPACES["net"])
    image = make_image(
        facts, inputs.image, user=spec.processes.user, network=spec.network.mode, hostname=inputs.hostname
    )
    points, root = box_root(spec, facts, image, inputs.sources, inputs.hostname, own_network=own_network)
    present = {_path_of(op) for op in image.template}
    limits = plan_limits(spec, facts)
    filters = box_filters(facts, inputs, keep)
    ruleset = _landlock(spec, facts, landlock_rules(spec, image, inputs.sources))
    return Plan(
        namespaces=_namespaces(spec, keep),
        bare=False,
        spare_network=_spare_network(spec, keep),
        user=spec.processes.user,
        group=spec.processes.user,
        template=(*image.template, *(op for op in points if _path_of(op) not in present)),
        root=tuple(root),
        landlock=ruleset,
        command=CommandStage(
            rlimits=limits.rlimits,
            known_capabilities=capabilities.known(facts.last_capability),
            keep_capabilities=keep,
            securebits=capabilities.securebits(keep),
            umask=0o022,
            filters=filters.programs,
            inherited_filters=filters.inherited,
            listener_flags=filters.listener_flags,
        ),
        cgroup=limits.cgroup,
        report=(*spec_clauses(spec, facts, ruleset, keep), *limits.clauses),
        level=spec.level,
        default_deny=filters.default_deny,
        host_sha256=host_sha256(facts),
        decides=filters.decides,
        terminals=filters.terminals,
        image=inputs.image.listing if inputs.image is not None else None,
    )


def _compile_bare(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """A box without namespaces: L1, for hosts that refuse them."""
    if kept_capabilities(spec, facts):
        raise SpecError(
            "capabilities are those of a user namespace, and this box has none",
            path="$.spec.processes.capabilities.add",
            need="no capability, or namespaces: all",
            have=" ".join(spec.processes.capabilities.add),
        )
    limits = plan_limits(spec, facts, bare=True)
    filters = box_filters(facts, inputs, 0)
    ruleset = _landlock(spec, facts, bare_rules(spec, facts, inputs.sources))
    root = facts.switches_user
    return Plan(
        namespaces=0,
        bare=True,
        spare_network=False,
        user=spec.processes.user if root else facts.uid,
        group=spec.processes.user if root else facts.gid,
        template=(),
        root=(),
        landlock=ruleset,
        command=CommandStage(
            rlimits=limits.rlimits,
            # A plain user has none, and may not touch the bounding set.
            known_capabilities=capabilities.known(facts.last_capability) if root else 0,
            keep_capabilities=0,
            securebits=capabilities.securebits(0) if root else 0,
            umask=0o022,
            filters=filters.programs,
            inherited_filters=filters.inherited,
            listener_flags=filters.listener_flags,
        ),
        cgroup=limits.cgroup,
        report=(
            *bare_clauses(spec, facts),
            *spec_clauses(spec, facts, ruleset, 0, bare=True),
            *(one for one in limits.clauses if one.clause != "limits.disk_mib"),
        ),
        level=spec.level,
        default_deny=filters.default_deny,
        host_sha256=host_sha256(facts),
        decides=filters.decides,
    )


def _path_of(op: Operation) -> str:
    return str(getattr(op, "path", ""))


def _namespaces(spec: SandboxSpec, keep: int) -> int:
    flags = 0
    for name, flag in NAMESPACES.items():
        if name != "net" or (spec.network.mode == "none" and not _spare_network(spec, keep)):
            flags |= flag
    return flags


def _spare_network(spec: SandboxSpec, keep: int) -> bool:
    """A network namespace made ahead belongs to the spawner's user namespace, where a box's capabilities are none."""
    return spec.network.mode == "none" and keep == 0


def _landlock(spec: SandboxSpec, facts: HostFacts, rules: tuple[tuple[str, landlock.Fs], ...]) -> Landlock | None:
    if spec.files.landlock == "off":
        return None
    if facts.landlock_abi < landlock.LEAST_ABI:
        optional = spec.protections.get("landlock") == "best_effort"
        if not optional or spec.level >= Level.L2:
            raise ProtectionUnavailable(
                "files.landlock",
                need=f"Landlock ABI {landlock.LEAST_ABI} (Linux 6.2)",
                have=f"ABI {facts.landlock_abi}" if facts.landlock_abi else "no Landlock",
                hint="use a newer kernel with landlock in its lsm= list, or level L1 with --best-effort landlock",
            )
        if facts.landlock_abi == 0:
            return None
    bare = is_bare(spec, facts)
    ruleset = landlock.compile_ruleset(facts.landlock_abi, rules)
    return Landlock(
        handled_fs=ruleset.handled_fs,
        handled_net=landlock.handled_tcp(facts.landlock_abi) if bare and spec.network.mode == "none" else 0,
        scoped=ruleset.scoped,
        rules=tuple(LandlockRule(path=path, access=access) for path, access in ruleset.rules),
        sentinel=BARE_SENTINEL if bare else "/" + SENTINEL,
    )
