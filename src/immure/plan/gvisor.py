"""The plan of a box with a kernel in user space: gVisor's `runsc` and all that it starts run in a box of our own. Pure.

The outer box has every namespace, ids of its own and the limits; of the host it shows what the bundle shows and
`runsc` itself. So nothing of a Sentry outlives its box, and one that is taken over is still in a box. Within the Sentry
our init serves commands, each under the same last stage as everywhere. runtime-spec (OCI); gvisor.dev/docs.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from immure.errors import ProtectionUnavailable, RuntimeUnavailable, SpecError
from immure.host.facts import HostFacts, ProgramFacts
from immure.plan.answers import answers_within
from immure.plan.bundle import BUNDLE, INIT, MOUNTS, ROOTFS, bundle_config
from immure.plan.checks import check_hardware, check_host
from immure.plan.filters import BoxFilters
from immure.plan.gvisor_clauses import gvisor_clauses
from immure.plan.image import Image, device_operations, make_image, parents
from immure.plan.limits import LimitPlan, plan_limits
from immure.plan.model import NAMESPACES, Inputs, Plan, box_filters, host_sha256, kept_capabilities
from immure.plan.operations import (
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    Bind,
    CommandStage,
    Dir,
    File,
    Folder,
    Hostname,
    MakeDir,
    MakeFile,
    MountNew,
    Private,
    RootOp,
    TemplateOp,
    UserMount,
)
from immure.plan.root import box_root
from immure.policy import capabilities
from immure.spec.models import SandboxSpec

#: In the outer box: what is run, a file that nobody within the Sentry may reach, and where an image is mounted to be
#: restored.
RUNSC, OUTSIDE, SNAPSHOT = "/runsc", "/outside", "/snapshot"
CONTAINER, RUNSC_ROOT = "box", "--root=/tmp/runsc"
#: What a Sentry takes for itself before there is any workload, and some more.
LEAST_MEMORY_MIB = 64
#: What runsc and its gofer do in the outer box: mounts, chroot, ids, and the files of whoever owns them.
_RUNSC_CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("SYS_CHROOT", "SYS_PTRACE", "SYS_ADMIN", "SETFCAP"),
)
_STATE_MIB = 512
#: What our init in the Sentry becomes, and no command: gVisor lets process 1 be killed by its own user.
_GUEST_IDS = (65_533, 65_532)


class _Parts(Struct, frozen=True):
    """What is worked out before the plan is put together."""

    runsc: ProgramFacts
    keep: int
    filters: BoxFilters
    limits: LimitPlan
    image: Image
    points: list[TemplateOp]
    within: list[RootOp]


def compile_gvisor(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """The plan of an L3 box. Raises SpecError, ProtectionUnavailable and RuntimeUnavailable."""
    parts = _parts(spec, facts, inputs)
    single = facts.ids.kind == "single"
    own_network = spec.network.mode == "none"
    outer = capabilities.resolve(
        _RUNSC_CAPABILITIES, (), last=facts.last_capability, path="$.spec.processes.capabilities"
    )
    return Plan(
        runtime="gvisor",
        namespaces=sum(flag for name, flag in NAMESPACES.items() if name != "net"),
        bare=False,
        spare_network=own_network,
        # With one id that is runsc's; the Sentry then shows it as the user's.
        user=0 if single else spec.processes.user,
        group=0 if single else spec.processes.user,
        template=tuple(_template(spec, facts, inputs, parts)),
        root=tuple(_outer_root(parts, inputs)),
        landlock=None,
        command=_stage(facts, outer, ()),
        cgroup=parts.limits.cgroup,
        report=(*gvisor_clauses(spec, facts, parts.runsc, parts.keep), *parts.limits.clauses),
        level=spec.level,
        default_deny=parts.filters.default_deny,
        host_sha256=host_sha256(facts),
        carrier=_carrier(spec, parts.keep),
        guest=_guest(spec, facts, parts),
        image=inputs.image.listing if inputs.image is not None else None,
        expects=_expected(facts, parts, outer),
    )


def _parts(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> _Parts:
    runsc = _checked_runsc(spec, inputs)
    _check_spec(spec, inputs)
    check_host(spec, facts, bare=False)
    keep = kept_capabilities(spec, facts)
    image = make_image(
        facts, inputs.image, user=spec.processes.user, network=spec.network.mode, hostname=inputs.hostname
    )
    points, within = box_root(spec, facts, image, inputs.sources, inputs.hostname, own_network=False)
    return _Parts(
        runsc=runsc,
        keep=keep,
        filters=box_filters(facts, inputs, keep),
        limits=plan_limits(spec, facts, inside=True),
        image=image,
        points=points,
        within=within,
    )


def _checked_runsc(spec: SandboxSpec, inputs: Inputs) -> ProgramFacts:
    found = inputs.runsc
    if not isinstance(found, ProgramFacts):
        need = found.need if found is not None else "runsc"
        have = found.have if found is not None else "none"
        raise RuntimeUnavailable(
            "gVisor can't be used on this host",
            need=need,
            have=have,
            hint=(found.command if found is not None else None) or "see `immure doctor`",
        )
    if spec.gvisor.platform == "kvm":
        # On one without it a Sentry hangs.
        what = "gVisor's platform kvm needs hardware virtualisation"
        check_hardware(inputs.kvm, what, "gvisor: {platform: systrap}")
    return found


def _check_spec(spec: SandboxSpec, inputs: Inputs) -> None:
    if spec.processes.namespaces == "none":
        raise SpecError(
            "a Sentry runs in namespaces of its own",
            path="$.spec.processes.namespaces",
            need="all",
            have="none",
            hint="use runtime: process",
        )
    if inputs.learning:
        raise SpecError(
            "what a command calls can't be learned in a Sentry",
            path="$.spec.runtime",
            need="process",
            have="gvisor",
        )
    if spec.protections.get("landlock") == "required":
        raise ProtectionUnavailable(
            "files.landlock",
            need="Landlock in the box's kernel",
            have="gVisor, which has none: its mounts and gofer control files",
            hint="leave protections.landlock out, or use runtime: process",
        )
    memory = spec.limits.memory_mib
    if memory is not None and memory < LEAST_MEMORY_MIB:
        raise SpecError(
            "a Sentry does not fit in this",
            path="$.spec.limits.memory_mib",
            need=f"{LEAST_MEMORY_MIB} at least, since the Sentry is counted too",
            have=str(memory),
        )


def _template(spec: SandboxSpec, facts: HostFacts, inputs: Inputs, parts: _Parts) -> list[TemplateOp]:
    """The outer root, and the workload's below `/rootfs`."""
    sealed = RDONLY | NOSUID | NODEV
    ops: list[TemplateOp] = [
        Dir(path=name, mode=0o755) for name in ("proc", "tmp", "dev", "bundle", "mounts", "snapshot")
    ]
    ops += device_operations(facts)
    ops.append(Dir(path=ROOTFS[1:], mode=0o755))
    ops += [
        File(path=RUNSC[1:], mode=0o755, data=b""),
        Bind(path=RUNSC[1:], source=parts.runsc.path, attributes=sealed),
    ]
    ops.append(File(path=OUTSIDE[1:], mode=0o444, data=b"no workload sees this file\n"))
    if spec.gvisor.platform == "kvm":
        ops += [File(path="dev/kvm", mode=0o666, data=b""), Bind(path="dev/kvm", source="/dev/kvm", attributes=NOSUID)]
    # The Sentry has devices of its own.
    image = [op for op in parts.image.template if not op.path.startswith("dev/")]
    present = {op.path for op in image}
    image += [op for op in parts.points if op.path not in present]
    image += _points_in_own_space(parts.within, {f"/{op.path}" for op in image})
    image += [File(path=INIT[1:], mode=0o755, data=b""), Bind(path=INIT[1:], source=inputs.init, attributes=sealed)]
    ops += [msgspec.structs.replace(op, path=f"{ROOTFS[1:]}/{op.path}") for op in image]
    mounts = _user_mounts(parts)
    kinds = {source.path: source.kind for source in inputs.sources}
    for number, mount in enumerate(mounts):
        place = f"{MOUNTS[1:]}/{number}"
        is_file = kinds[mount.source] == "file"
        ops.append(File(path=place, mode=0o644, data=b"") if is_file else Dir(path=place, mode=0o755))
    single = facts.ids.kind == "single"
    config = bundle_config(spec, inputs.hostname, parts.keep, tuple(parts.within), single=single)
    ops.append(File(path=f"{BUNDLE[1:]}/config.json", mode=0o444, data=config))
    return ops


def _points_in_own_space(within: list[RootOp], present: set[str]) -> list[TemplateOp]:
    """Where mounts stand in the Sentry's own space, the gofer needs them in the root below that."""
    ops: list[TemplateOp] = []
    for op in within:
        if not isinstance(op, MakeDir | MakeFile):
            continue
        ops += parents(op.path, present)
        if op.path not in present:
            present.add(op.path)
            is_file = isinstance(op, MakeFile)
            path = op.path.lstrip("/")
            ops.append(File(path=path, mode=0o644, data=b"") if is_file else Dir(path=path, mode=0o755))
    return ops


def _user_mounts(parts: _Parts) -> tuple[UserMount, ...]:
    return tuple(op for op in parts.within if isinstance(op, UserMount))


def _outer_root(parts: _Parts, inputs: Inputs) -> list[RootOp]:
    """Its /proc has nothing hidden: a Sentry that mounts one needs a whole one to be visible."""
    ops: list[RootOp] = [
        MountNew(kind="proc", path="/proc", options="", flags=NOSUID | NODEV | NOEXEC),
        Private(
            options=f"size={_STATE_MIB}m,mode=0755",
            flags=NOSUID | NODEV,
            folders=(Folder(path="/tmp", name="tmp", mode=0o700),),
        ),
    ]
    # Its gofer makes files as id 0, and gives them to the user.
    ops += [
        msgspec.structs.replace(mount, path=f"{MOUNTS}/{number}", root_too=True)
        for number, mount in enumerate(_user_mounts(parts))
    ]
    ops.append(Hostname(name=inputs.hostname))
    return ops


def _stage(facts: HostFacts, keep: int, filters: tuple[bytes, ...]) -> CommandStage:
    """The last stage of what is started in the outer box: it keeps what it needs, in a user namespace of its own."""
    return CommandStage(
        rlimits=(),
        known_capabilities=capabilities.known(facts.last_capability),
        keep_capabilities=keep,
        securebits=capabilities.securebits(keep),
        umask=0o022,
        filters=filters,
        inherited_filters=0,
    )


def _carrier(spec: SandboxSpec, keep: int) -> tuple[str, ...]:
    # Without it runsc takes the capability out of the bundle.
    raw = ("--net-raw",) if keep >> capabilities.NAMES.index("NET_RAW") & 1 else ()
    return (
        RUNSC,
        RUNSC_ROOT,
        f"--network={spec.network.mode}",
        f"--platform={spec.gvisor.platform}",
        "--ignore-cgroups",
        "--overlay2=none",
        *raw,
        "run",
        "--detach",
        f"--bundle={BUNDLE}",
        CONTAINER,
    )


def runsc_options(carrier: tuple[str, ...]) -> tuple[str, ...]:
    """The program and its options, without what it is to do."""
    end = next(place for place, word in enumerate(carrier) if place and not word.startswith("--"))
    return carrier[:end]


def _guest(spec: SandboxSpec, facts: HostFacts, parts: _Parts) -> bytes:
    """What our init in the Sentry is told. gVisor refuses PR_SET_SECUREBITS, which without uid 0 is of no use."""
    single = facts.ids.kind == "single"
    user = spec.processes.user
    stage = CommandStage(
        rlimits=parts.limits.rlimits,
        known_capabilities=capabilities.known(facts.last_capability),
        keep_capabilities=parts.keep,
        securebits=0,
        umask=0o022,
        filters=parts.filters.programs,
        inherited_filters=0,
        ahead=parts.filters.inherited == len(parts.filters.programs),
    )
    own_ids = {"user": user, "group": user} if single else None
    return msgspec.msgpack.encode(
        {
            "command": stage,
            "landlock": None,
            "drop_groups": not single,
            "own_ids": own_ids,
            "own_id": None if single else next(one for one in _GUEST_IDS if one != user),
        }
    )


def _expected(facts: HostFacts, parts: _Parts, outer: int) -> dict[str, object]:
    return {
        "boundary": "user_kernel",
        "default_deny": parts.filters.default_deny,
        "keep_capabilities": parts.keep,
        "outer_capabilities": outer,
        "host_root_id": facts.host_root_id,
        **answers_within(facts, parts.filters.programs),
        "runsc": RUNSC,
        "host_kernel": ".".join(map(str, facts.kernel)),
    }
