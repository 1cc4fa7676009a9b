"""The plan of a box in a virtual machine, whoever runs that: the VMM is the only command of an ordinary box. Pure.

The outer box is one of the process runtime with all its walls: whoever breaks out of the machine is in a box of level
L2. It sees of the host what any box sees, and what the machine is made of. Within the machine our init serves commands,
each under the same last stage as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from immure.errors import RuntimeUnavailable, SpecError
from immure.host.facts import HostFacts, MachineFacts, Missing
from immure.plan.answers import answers_within
from immure.plan.checks import check_hardware
from immure.plan.filters import BoxFilters
from immure.plan.image import make_image
from immure.plan.limits import DEFAULT_DISK_MIB, DEFAULT_PIDS, RLIMIT_CORE, RLIMIT_FSIZE, RLIMIT_NPROC
from immure.plan.machine_clauses import machine_clauses
from immure.plan.machine_landlock import landlock_within
from immure.plan.machine_mounts import (
    changed_mounts,
    check_writable,
    places_of_changes,
    rules_of_changes,
    show_sources,
)
from immure.plan.machine_space import disk_bytes, disk_of, on_disk, shared_memory_mib
from immure.plan.model import Inputs, Plan, box_filters, kept_capabilities
from immure.plan.operations import (
    NODEV,
    NOEXEC,
    NOSUID,
    RDONLY,
    Bind,
    CommandStage,
    Device,
    Dir,
    File,
    Hostname,
    LandlockRule,
    MakeDir,
    MakeFile,
    MountNew,
    Private,
    RootOp,
    Share,
    TemplateOp,
    UserMount,
)
from immure.plan.process import compile_process
from immure.plan.root import box_root
from immure.policy import capabilities, landlock
from immure.spec.models import Level, Limits, Processes, SandboxSpec

#: In the outer box: what is booted, and a file that no workload may reach.
PLACE = "/machine"
KERNEL, FIRST_ROOT, IMAGE, MOUNTS, OUTSIDE = (
    f"{PLACE}/{name}" for name in ("kernel", "initramfs", "image", "mounts", "outside")
)
KVM = "/dev/kvm"
#: devices.txt of the kernel's documentation.
_MISC, _KVM_MINOR = 10, 232
#: The VMM's user there.
OUTER_USER = 1000
DEFAULT_MEMORY_MIB = 512
#: What a VMM takes beside its guest's memory, and some more.
_AROUND_MIB = 160
#: Of the box around it: what the console says is all that is written there.
_SPACE_MIB = 16
#: What a Linux and our init take for themselves before there is any workload, and some more.
LEAST_MEMORY_MIB = 64


class Vmm(Struct, frozen=True):
    """What of a machine's plan is its VMM's own: how it is called and started, and what it needs beside the machine.

    `program` is its path as the host sees it of its process, and `booted` what it is given as descriptors.
    """

    runtime: str
    name: str
    program: str
    carrier: tuple[str, ...]
    kvm: bool
    files: tuple[TemplateOp, ...] = ()
    #: What of it the VMM may open, beside what any does.
    rules: tuple[LandlockRule, ...] = ()
    booted: tuple[str, ...] = ()


def machine_plan(spec: SandboxSpec, facts: HostFacts, inputs: Inputs, machine: MachineFacts, vmm: Vmm) -> Plan:
    """The plan of a box in this machine."""
    keep = kept_capabilities(spec, facts)
    outer = compile_process(_outer_spec(spec), facts, Inputs(sources=(), profile=None, filters=inputs.around))
    filters = box_filters(facts, inputs, keep)
    rules = (*outer.landlock.rules, *_rules(kvm=vmm.kvm), *vmm.rules) if outer.landlock is not None else ()
    told, changes = _guest(spec, facts, inputs, keep, filters)
    cpus = next(clause for clause in outer.report if clause.clause == "limits.cpus")
    return msgspec.structs.replace(
        outer,
        runtime=vmm.runtime,
        template=(*outer.template, *_files(machine, kvm=_kvm_device(facts) if vmm.kvm else ()), *vmm.files),
        landlock=msgspec.structs.replace(outer.landlock, rules=rules) if outer.landlock is not None else None,
        command=_bounded(outer.command, spec),
        report=machine_clauses(
            spec, machine, keep, vmm=vmm.name, on_kvm=vmm.kvm, memory_mib=memory_mib(spec), cpus=cpus
        ),
        level=spec.level,
        default_deny=filters.default_deny,
        # The outer box's stem has none of the machine's.
        terminals=False,
        carrier=vmm.carrier,
        guest=told,
        changes=changes,
        booted=vmm.booted,
        disk=disk_of(spec, machine.disk),
        # Another file by one of these names is another thing to show.
        image=(inputs.image and inputs.image.listing, machine.vmm, machine.kernel, machine.files, machine.booted),
        expects={
            "boundary": "machine",
            "hardware": machine.kvm.kind == "hardware",
            "program": vmm.program,
            "memory_mib": memory_mib(spec),
            "around": {
                "filters": outer.command.filters,
                "default_deny": outer.default_deny,
                "keep_capabilities": outer.command.keep_capabilities,
                "user": outer.user,
                "host_root_id": facts.host_root_id,
                "landlock_abi": facts.landlock_abi,
            },
            "default_deny": filters.default_deny,
            "landlock": None if spec.files.landlock == "off" else spec.protections.get("landlock", "best_effort"),
            "keep_capabilities": keep,
            **answers_within(facts, filters.programs),
        },
    )


def processors(spec: SandboxSpec) -> int:
    """How many the machine has."""
    return max(1, math.ceil(spec.limits.cpus or 1))


def memory_mib(spec: SandboxSpec) -> int:
    """What the machine has."""
    return spec.limits.memory_mib or DEFAULT_MEMORY_MIB


def mounts_disk(spec: SandboxSpec) -> str:
    """Where the disk of the user's mounts is, if there are any."""
    return MOUNTS if any(mount.source is not None for mount in spec.files.mounts) else ""


def own_disk(spec: SandboxSpec) -> str | None:
    """The name of the device that holds the machine's private space, where that is not in its memory."""
    if spec.limits.disk_mib is None:
        return None
    return "vdc" if mounts_disk(spec) else "vdb"


def checked_machine(spec: SandboxSpec, inputs: Inputs, vmm: str) -> MachineFacts:
    """What was found of it. Raises RuntimeUnavailable for what is missing, hardware for L4 too."""
    if spec.level >= Level.L4:
        check_hardware(
            inputs.kvm,
            "no runtime on this host reaches L4, which is a wall of the processor's",
            "ask for level L3; with the runtime of a machine that is one without the processor's help",
        )
    found = inputs.machine
    if not isinstance(found, MachineFacts):
        missing = found or Missing(need=f"{vmm} and a kernel", have="none that was looked for")
        raise RuntimeUnavailable(
            "no virtual machine can be made on this host",
            need=missing.need,
            have=missing.have,
            hint=missing.command or "see `immure doctor`",
        )
    return found


def check_spec(spec: SandboxSpec, inputs: Inputs, runtime: str) -> None:
    """Raises SpecError and ProtectionUnavailable for what no machine can have."""
    if spec.network.mode != "none":
        raise SpecError("a machine has no network", path="$.spec.network.mode", need="none", have=spec.network.mode)
    if spec.processes.namespaces == "none":
        raise SpecError(
            "a machine runs in namespaces of its own",
            path="$.spec.processes.namespaces",
            need="all",
            have="none",
            hint="use runtime: process",
        )
    if inputs.learning:
        raise SpecError(
            "what a command calls can't be learned in a machine",
            path="$.spec.runtime",
            need="process",
            have=runtime,
        )
    check_writable(spec, inputs.sources)
    if memory_mib(spec) < LEAST_MEMORY_MIB:
        raise SpecError(
            "a machine does not fit in this",
            path="$.spec.limits.memory_mib",
            need=f"{LEAST_MEMORY_MIB} at least, since its kernel is counted too",
            have=str(spec.limits.memory_mib),
        )


def _outer_spec(spec: SandboxSpec) -> SandboxSpec:
    """Around the VMM. The machine's size bounds what it takes; a cgroup is one bound more where there is one."""
    memory = memory_mib(spec) + _AROUND_MIB if spec.limits.memory_mib is not None else None
    return SandboxSpec(
        level=Level.L2,
        runtime="process",
        processes=Processes(user=OUTER_USER),
        limits=Limits(memory_mib=memory, cpus=spec.limits.cpus, disk_mib=_SPACE_MIB),
        protections={"memory": "best_effort", "cpus": spec.protections.get("cpus", "required")},
    )


def _bounded(stage: CommandStage, spec: SandboxSpec) -> CommandStage:
    """Whoever has taken the VMM over makes no file larger than its disk, or a copy of its memory."""
    size = disk_bytes(spec)
    if not size:
        return stage
    most = max(size, (memory_mib(spec) + _AROUND_MIB) << 20)
    return msgspec.structs.replace(stage, rlimits=(*stage.rlimits, (RLIMIT_FSIZE, most, most)))


def _files(machine: MachineFacts, *, kvm: Sequence[TemplateOp]) -> list[TemplateOp]:
    """What the machine is made of, in the outer box, and the device where that is to be there."""
    sealed = RDONLY | NOSUID | NODEV | NOEXEC
    places = (FIRST_ROOT, IMAGE, MOUNTS)
    shown = {
        KERNEL: machine.kernel.path,
        **{place: path for place, (path, _) in zip(places, machine.files, strict=False)},
    }
    ops: list[TemplateOp] = [Dir(path=PLACE[1:], mode=0o755)]
    ops.append(File(path=OUTSIDE[1:], mode=0o444, data=b"no workload sees this file\n"))
    for place, source in shown.items():
        ops += [File(path=place[1:], mode=0o444, data=b""), Bind(path=place[1:], source=source, attributes=sealed)]
    return [*ops, *kvm]


def _kvm_device(facts: HostFacts) -> list[TemplateOp]:
    """As root, one that the VMM's user may open: the host's own is often for root and a group alone."""
    if facts.root:
        return [Device(path=KVM[1:], mode=0o666, major=_MISC, minor=_KVM_MINOR)]
    return [File(path=KVM[1:], mode=0o666, data=b""), Bind(path=KVM[1:], source=KVM, attributes=NOSUID | NOEXEC)]


def _rules(*, kvm: bool) -> list[LandlockRule]:
    """What the VMM may open of that."""
    rules = [LandlockRule(path=PLACE, access=landlock.READ)]
    if kvm:
        rules.append(LandlockRule(path=KVM, access=landlock.DEVICES & landlock.FILE_RIGHTS))
    return rules


def _guest(
    spec: SandboxSpec, facts: HostFacts, inputs: Inputs, keep: int, filters: BoxFilters
) -> tuple[bytes, tuple[tuple[str, int, str, int], ...]]:
    """What our init in the machine is told, but for the moment at which it wakes up; and the mounts written to."""
    image = make_image(facts, inputs.image, user=spec.processes.user, network="none", hostname=inputs.hostname)
    points, within = box_root(spec, facts, image, inputs.sources, inputs.hostname, own_network=False)
    pids = spec.limits.pids or DEFAULT_PIDS
    stage = CommandStage(
        rlimits=((RLIMIT_CORE, 0, 0), (RLIMIT_NPROC, pids, pids)),
        known_capabilities=capabilities.known(facts.last_capability),
        keep_capabilities=keep,
        securebits=capabilities.securebits(keep),
        umask=0o022,
        filters=filters.programs,
        inherited_filters=filters.inherited_within,
    )
    root = show_sources((op for op in within if _is_guest_s(op)), inputs.sources)
    if (device := own_disk(spec)) is not None:
        root = on_disk(root, device, shared_memory_mib(spec, memory_mib(spec)))
    # What is packed is the same for all boxes.
    own = [op for op in image.template if isinstance(op, File) and op.path.startswith("etc/")]
    domain = landlock_within(spec, image, inputs.sources, rules_of_changes(root))
    told = {
        "command": stage,
        "landlock": domain,
        "drop_groups": True,
        "image": [*own, *points, *places_of_changes(root)],
        "root": root,
    }
    most_mib = disk_bytes(spec) >> 20 or DEFAULT_DISK_MIB
    return msgspec.msgpack.encode(told), changed_mounts(root, inputs.sources, most_mib)


def _is_guest_s(op: RootOp) -> bool:
    """Its first process makes /proc and devices before it is told anything."""
    if isinstance(op, MountNew):
        return op.kind == "tmpfs"
    return isinstance(op, Private | Share | MakeDir | MakeFile | UserMount | Hostname)
