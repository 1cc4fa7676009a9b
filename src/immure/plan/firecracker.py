"""The plan of a box in a machine of Firecracker's, which runs in an ordinary box of our own. Pure.

That outer box has all the walls of any box, the device of KVM, and what the machine is made of; Firecracker is its only
command. It takes the place of Firecracker's jailer: that needs root, and gives neither Landlock nor a user namespace.
"""

from __future__ import annotations

import msgspec

from immure.errors import RuntimeUnavailable, SpecError
from immure.host.facts import HostFacts, MachineFacts
from immure.plan.answers import answers_within
from immure.plan.firecracker_clauses import firecracker_clauses
from immure.plan.firecracker_config import MOST_PROCESSORS, Machine, configuration
from immure.plan.model import Inputs, Plan, box_filters, kept_capabilities
from immure.plan.operations import NODEV, NOEXEC, NOSUID, RDONLY, Bind, File, TemplateOp
from immure.plan.process import compile_process
from immure.plan.qemu import (
    FIRST_ROOT,
    IMAGE,
    KERNEL,
    MOUNTS,
    PLACE,
    check_spec,
    checked_machine,
    guest_of,
    kvm_device,
    machine_rules,
    memory_mib,
    outer_spec,
    processors,
    shown_files,
)
from immure.spec.models import SandboxSpec

#: In the outer box: the program, what it boots from, and what it goes on from: a machine's memory, and the rest of it.
PROGRAM, CONFIG, MEMORY, STATE = (f"{PLACE}/{name}" for name in ("firecracker", "config", "memory", "state"))
#: Its sockets there.
API, VSOCK = "/tmp/api", "/tmp/vsock"
#: It says on its console what is wrong, and nothing else.
_SERVES = (PROGRAM, "--level", "Error", "--api-sock", API)


def compile_firecracker(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """The plan of a box in a machine. Raises SpecError, ProtectionUnavailable and RuntimeUnavailable."""
    machine = checked_machine(spec, inputs, "Firecracker")
    check_spec(spec, inputs, "firecracker")
    _check_kvm(machine)
    _check_processors(spec)
    _check_kernel(machine)
    keep = kept_capabilities(spec, facts)
    outer = compile_process(outer_spec(spec), facts, Inputs(sources=(), profile=None, filters=inputs.around))
    filters = box_filters(facts, inputs, keep)
    rules = (*outer.landlock.rules, *machine_rules(kvm=True)) if outer.landlock is not None else ()
    told, changes = guest_of(spec, facts, inputs, keep, filters.programs)
    cpus = next(clause for clause in outer.report if clause.clause == "limits.cpus")
    return msgspec.structs.replace(
        outer,
        runtime="firecracker",
        template=(*outer.template, *shown_files(machine, kvm=kvm_device(facts)), *_own_files(spec, machine)),
        landlock=msgspec.structs.replace(outer.landlock, rules=rules) if outer.landlock is not None else None,
        report=firecracker_clauses(spec, machine, keep, memory_mib=memory_mib(spec), cpus=cpus),
        level=spec.level,
        default_deny=filters.default_deny,
        # The outer box's stem has none of the machine's.
        terminals=False,
        carrier=_SERVES if machine.booted else (*_SERVES, "--config-file", CONFIG),
        guest=told,
        changes=changes,
        # Another file by one of these names is another thing to show.
        image=(inputs.image and inputs.image.listing, machine.vmm, machine.kernel, machine.booted),
        expects={
            "boundary": "machine",
            "hardware": machine.kvm.kind == "hardware",
            "program": PROGRAM,
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


def _check_kvm(machine: MachineFacts) -> None:
    if machine.kvm.kind != "absent":
        return
    missing = machine.kvm.missing
    raise RuntimeUnavailable(
        "Firecracker can't be used on this host: it runs on KVM alone",
        need=missing.need if missing is not None else "KVM",
        have=missing.have if missing is not None else "none",
        hint=(missing.command if missing is not None else None) or "use runtime: qemu, which can do without",
    )


def _check_kernel(machine: MachineFacts) -> None:
    if machine.modular:
        raise RuntimeUnavailable(
            "this kernel can't be booted by Firecracker",
            need="one with its drivers built in, without ACPI",
            have=f"{machine.kernel.path}, whose drivers are modules",
            hint="name another one by IMMURE_KERNEL, or use runtime: qemu",
        )


def _check_processors(spec: SandboxSpec) -> None:
    if processors(spec) > MOST_PROCESSORS:
        raise SpecError(
            "a machine of Firecracker's does not have so many processors",
            path="$.spec.limits.cpus",
            need=f"{MOST_PROCESSORS} at most",
            have=str(spec.limits.cpus),
        )


def configured(spec: SandboxSpec, machine: MachineFacts) -> bytes:
    """What Firecracker is told of the spec's machine."""
    made = Machine(
        kernel=KERNEL,
        initramfs=FIRST_ROOT,
        image=IMAGE,
        vsock=VSOCK,
        mounts=MOUNTS if any(mount.source is not None for mount in spec.files.mounts) else "",
        memory_mib=memory_mib(spec),
        cpus=processors(spec),
        emulated=machine.kvm.kind == "emulating",
    )
    return configuration(made)


def _own_files(spec: SandboxSpec, machine: MachineFacts) -> list[TemplateOp]:
    """Firecracker itself, its configuration, and what it goes on from where it does not boot."""
    sealed = RDONLY | NOSUID | NODEV
    ops: list[TemplateOp] = [
        File(path=CONFIG[1:], mode=0o444, data=configured(spec, machine)),
        *_shown(PROGRAM, machine.vmm.path, sealed, mode=0o555),
    ]
    for place, source in zip((MEMORY, STATE), machine.booted, strict=False):
        ops += _shown(place, source[0], sealed | NOEXEC)
    return ops


def _shown(place: str, source: str, attributes: int, mode: int = 0o444) -> list[TemplateOp]:
    return [File(path=place[1:], mode=mode, data=b""), Bind(path=place[1:], source=source, attributes=attributes)]
