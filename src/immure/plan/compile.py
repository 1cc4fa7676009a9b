"""`compile_plan`: from what is wanted and what the host is to what will be done. Pure."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from immure.errors import ProtectionUnavailable, RuntimeUnavailable, SpecError
from immure.host.facts import OWN_ID_IS_ROOT, ROOT_RANGES, HostFacts, IdRange, Missing, SourceFacts
from immure.plan.bare import BARE_SENTINEL, bare_clauses, bare_rules, is_bare
from immure.plan.clauses import spec_clauses
from immure.plan.filters import BoxFilters, asking_filters, compile_filters
from immure.plan.image import SENTINEL, host_image
from immure.plan.launch import Launch
from immure.plan.limits import own_processes, plan_limits
from immure.plan.operations import (
    CgroupLimit,
    CommandStage,
    Landlock,
    LandlockRule,
    Operation,
    RootOp,
    TemplateOp,
    UserMount,
)
from immure.plan.report import Clause
from immure.plan.root import box_root, landlock_rules, mount_path
from immure.policy import capabilities, landlock
from immure.policy.seccomp import Profile
from immure.spec.models import Level, SandboxSpec

#: CLONE_NEW* by the names of the clauses.
NAMESPACES = {
    "mount": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
BARE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
}
BASE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
}


class Inputs(Struct, frozen=True):
    """What was read for the spec: its mounts' sources in order, and its seccomp profile.

    `filters` are the profile's for this host and for what the spec keeps, where they are compiled already.
    """

    sources: tuple[SourceFacts, ...]
    profile: Profile | None
    filters: BoxFilters | None = None
    hostname: str = "immure"
    #: A supervisor answers the calls of the box's command, and sees them all.
    learning: bool = False


class Plan(Struct, frozen=True):
    """Everything that will be done for a box, in order, and what the user gets for each clause."""

    namespaces: int
    bare: bool
    spare_network: bool
    user: int
    group: int
    template: tuple[TemplateOp, ...]
    root: tuple[RootOp, ...]
    landlock: Landlock | None
    command: CommandStage
    cgroup: tuple[CgroupLimit, ...]
    report: tuple[Clause, ...]
    level: Level
    default_deny: bool
    host_sha256: str
    #: The filter by which a supervisor is to answer, where one is asked.
    decides: bytes | None = None
    #: The stem makes terminals out of the box's own devpts.
    terminals: bool = False

    def describe(self) -> list[str]:
        """What will be done, a line a step, for `--dry-run`."""
        made = [name for name, flag in NAMESPACES.items() if self.namespaces & flag]
        if self.spare_network:
            made.append("net (made ahead)")
        lines = [f"namespaces {' '.join(made) or 'none'}"]
        lines += [f"image: {op.describe()}" for op in self.template]
        lines += [limit.describe() for limit in self.cgroup]
        lines += [f"box: {op.describe()}" for op in self.root]
        if self.landlock is not None:
            lines += [f"landlock: {rule.path} {landlock.Fs(rule.access)!r}" for rule in self.landlock.rules]
        lines.append(f"command: keep capabilities {self.command.keep_capabilities:#x}, no_new_privs")
        lines += [f"command: seccomp filter of {len(one) // 8} instructions" for one in self.command.filters]
        return lines

    def wire(self) -> bytes:
        """The form that the native program reads."""
        try:
            return self._encode()
        except UnicodeEncodeError as error:
            raise SpecError(
                "a path or name is no text",
                path="$.spec",
                need="UTF-8",
                have=ascii(error.object),
                hint="rename it, or mount the folder above",
            ) from error

    def _encode(self) -> bytes:
        key = hashlib.sha256(msgspec.msgpack.encode(self.template)).digest()
        return msgspec.msgpack.encode(
            {
                "namespaces": self.namespaces,
                "bare": self.bare,
                "spare_network": self.spare_network,
                "user": self.user,
                "group": self.group,
                "template_key": key,
                "template": self.template,
                "root": self.root,
                "landlock": self.landlock,
                "command": self.command,
                "cgroup": self.cgroup,
            }
        )


def compile_plan(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """The plan of a box.

    Raises SpecError for a spec that contradicts itself, ProtectionUnavailable for a required protection that this
    host lacks, and RuntimeUnavailable for a level that no runtime here reaches.
    """
    _check_level(spec)
    bare = is_bare(spec, facts)
    _check_host(spec, facts, bare=bare)
    if bare:
        return _compile_bare(spec, facts, inputs)
    keep = kept_capabilities(spec, facts)
    own_network = bool(_namespaces(spec, keep) & NAMESPACES["net"])
    points, root = box_root(spec, facts, inputs.sources, inputs.hostname, own_network=own_network)
    image = host_image(facts, user=spec.processes.user, network=spec.network.mode, hostname=inputs.hostname)
    present = {_path_of(op) for op in image}
    limits = plan_limits(spec, facts)
    filters = _filters(facts, inputs, keep)
    ruleset = _landlock(spec, facts, landlock_rules(spec, facts, inputs.sources))
    return Plan(
        namespaces=_namespaces(spec, keep),
        bare=False,
        spare_network=_spare_network(spec, keep),
        user=spec.processes.user,
        group=spec.processes.user,
        template=(*image, *(op for op in points if _path_of(op) not in present)),
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
        host_sha256=_host_sha256(facts),
        decides=filters.decides,
        terminals=filters.terminals,
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
    filters = _filters(facts, inputs, 0)
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
        host_sha256=_host_sha256(facts),
        decides=filters.decides,
    )


def _filters(facts: HostFacts, inputs: Inputs, keep: int) -> BoxFilters:
    filters = inputs.filters
    if filters is None:
        assert inputs.profile is not None
        filters = compile_filters(inputs.profile, arch=facts.arch, kernel=facts.kernel, keep=keep)
    return asking_filters(filters, arch=facts.arch, kernel=facts.kernel) if inputs.learning else filters


def kept_capabilities(spec: SandboxSpec, facts: HostFacts) -> int:
    """The capabilities that commands keep, as a set of bits. Raises SpecError for names that there are not."""
    return capabilities.resolve(
        spec.processes.capabilities.add,
        spec.processes.capabilities.drop,
        last=facts.last_capability,
        path="$.spec.processes.capabilities",
    )


def _host_sha256(facts: HostFacts) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(facts)).hexdigest()


def make_launch(plan: Plan, spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Launch:
    """The plan in plain values, with what the readback must show."""
    launch = Launch()
    launch.wire = plan.wire()
    launch.plan_sha256 = hashlib.sha256(launch.wire).hexdigest()
    launch.host_sha256 = plan.host_sha256
    launch.runtime = "process"
    launch.level = str(spec.level)
    launch.mac = f"landlock/{facts.landlock_abi}" if plan.landlock is not None else None
    launch.decides = plan.decides
    launch.terminals = plan.terminals
    launch.expected = {
        # In the order of installation, in which the kernel gives them back.
        "filters": plan.command.filters,
        "default_deny": plan.default_deny,
        "keep_capabilities": plan.command.keep_capabilities,
        "user": plan.user,
        "host_root_id": facts.host_root_id,
        "landlock_abi": facts.landlock_abi if plan.landlock is not None else 0,
    }
    launch.report = tuple((c.clause, c.wanted, c.got, c.by, c.why) for c in plan.report)
    # In the order in which they are attached.
    kinds = {source.path: source.kind for source in inputs.sources}
    launch.sources = tuple((op.source, kinds[op.source]) for op in plan.root if isinstance(op, UserMount))
    launch.user = plan.user
    launch.env = {**(BARE_ENV if plan.bare else BASE_ENV), **spec.env}
    launch.workdir = _workdir(spec, inputs, "/" if plan.bare else "/tmp")
    launch.timeout_s = spec.limits.timeout_s
    output = spec.limits.output_mib
    launch.config = spawner_config(facts, host_network=spec.network.mode == "host" or plan.bare, bare=plan.bare)
    launch.root = facts.root or (plan.bare and facts.switches_user)
    used = {limit.controller for limit in plan.cgroup}
    launch.cgroups = tuple(one.path for one in facts.cgroups if used & set(one.controllers))
    launch.own_processes = own_processes(bare=plan.bare)
    launch.ranges = _id_source(facts, bare=plan.bare).kind == "ranges"
    launch.output_bytes = int(output * (1 << 20)) if output is not None else None
    return launch


def spawner_config(facts: HostFacts, *, host_network: bool, bare: bool) -> bytes:
    """The first message to a spawner on this host."""
    source = _id_source(facts, bare=bare)
    ids: dict[str, object] = {"kind": source.kind}
    if source.kind == "ranges":
        ids.update(
            base_uid=source.base_uid,
            base_gid=source.base_gid,
            size=source.size,
            slots=source.slots,
            newuidmap=source.newuidmap,
            newgidmap=source.newgidmap,
        )
    return msgspec.msgpack.encode(
        {
            "rootless": not (facts.root or (bare and facts.switches_user)),
            "bare": bare,
            "host_network": host_network,
            "caller_uid": facts.uid,
            "caller_gid": facts.gid,
            "ids": ids,
            "cgroups": [{"controllers": one.controllers, "path": one.path} for one in facts.cgroups],
        }
    )


def _id_source(facts: HostFacts, *, bare: bool) -> IdRange:
    """Without a user namespace to map ids in, only who may become another user has a range of them."""
    if not bare:
        return facts.ids
    return ROOT_RANGES if facts.switches_user else IdRange(kind="single")


def _path_of(op: Operation) -> str:
    return str(getattr(op, "path", ""))


def _workdir(spec: SandboxSpec, inputs: Inputs, default: str) -> str:
    """The first folder that is mounted somewhere else than where it is: one that is not is there for its files."""
    if spec.workdir is not None:
        return spec.workdir
    targets = [mount_path(mount) for mount in spec.files.mounts if mount.source is not None]
    for target, source in zip(targets, inputs.sources, strict=True):
        if source.kind == "folder" and (target != source.path or default == "/"):
            return target
    return default


def _check_level(spec: SandboxSpec) -> None:
    if spec.level > Level.L2:
        raise RuntimeUnavailable(
            f"no runtime on this host reaches {spec.level}",
            need="a user-space kernel or a virtual machine",
            have="the process runtime, which reaches L2",
            hint="ask for L2",
        )
    if spec.level == Level.L2:
        _refuse_at_l2(spec.network.mode == "host", "$.spec.network.mode", "none", "host")
        _refuse_at_l2(spec.files.landlock == "off", "$.spec.files.landlock", "auto", "off")
        _refuse_at_l2(spec.processes.namespaces == "none", "$.spec.processes.namespaces", "all", "none")
    if any(mount.access == "review" for mount in spec.files.mounts):
        raise SpecError(
            "review mounts can't be made by this runtime",
            path="$.spec.files.mounts",
            need="access ro or rw",
            have="review",
        )


def _refuse_at_l2(refused: bool, path: str, need: str, have: str) -> None:
    if refused:
        raise SpecError(
            "caps the level at L1, but L2 is asked for", path=path, need=need, have=have, hint="set level: L1"
        )


def _check_host(spec: SandboxSpec, facts: HostFacts, *, bare: bool) -> None:
    needs: list[tuple[str, Missing | None]] = [("evidence", facts.ptrace)]
    if bare and facts.uid == facts.host_root_id and not facts.switches_user:
        needs.append(("processes.user", OWN_ID_IS_ROOT))
    if not bare:
        needs += [
            ("processes.namespaces", facts.user_namespaces),
            ("processes.namespaces (a new /proc)", facts.new_proc),
        ]
    if not bare and facts.own_id_is_host_root:
        needs.append(("processes.user", OWN_ID_IS_ROOT))
    for name, missing in needs:
        if missing is not None:
            hint = missing.command or ""
            if name != "evidence":
                hint += "; or ask for level L1 with --best-effort namespaces"
            raise ProtectionUnavailable(name, need=missing.need, have=missing.have, hint=hint.lstrip("; ") or None)
    if not facts.seccomp:
        raise ProtectionUnavailable(
            "syscalls", need="a kernel with CONFIG_SECCOMP_FILTER", have="none", hint="use another kernel"
        )


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
