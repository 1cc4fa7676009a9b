"""The plan of a box in a machine of QEMU's. Pure."""

from __future__ import annotations

from immure.errors import RuntimeUnavailable
from immure.host.facts import HostFacts, MachineFacts
from immure.plan.machine import (
    FIRST_ROOT,
    IMAGE,
    KERNEL,
    Vmm,
    check_spec,
    checked_machine,
    machine_plan,
    memory_mib,
    mounts_disk,
    processors,
)
from immure.plan.machine_space import disk_bytes
from immure.plan.model import Inputs, Plan
from immure.plan.qemu_arguments import Machine, qemu_arguments
from immure.spec.models import SandboxSpec


def compile_qemu(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """The plan of a box in a machine. Raises SpecError, ProtectionUnavailable and RuntimeUnavailable."""
    machine = checked_machine(spec, inputs, "QEMU")
    _check_place(machine, facts)
    check_spec(spec, inputs, "qemu")
    vmm = Vmm(
        runtime="qemu",
        name="QEMU",
        program=machine.vmm.path,
        carrier=(machine.vmm.path, *machine_words(spec, machine)),
        kvm=machine.kvm.kind == "hardware",
        booted=tuple(path for path, _ in machine.booted),
    )
    return machine_plan(spec, facts, inputs, machine, vmm)


def _check_place(found: MachineFacts, facts: HostFacts) -> None:
    if not any(found.vmm.path.startswith(f"{folder}/") for folder in facts.image.folders):
        raise RuntimeUnavailable(
            "QEMU is nowhere where a box shows it, with its libraries and firmware",
            need=f"a QEMU below {facts.image.folders[0]}",
            have=found.vmm.path,
            hint="install the distribution's",
        )


def machine_words(spec: SandboxSpec, machine: MachineFacts) -> tuple[str, ...]:
    """What QEMU is told of the spec's machine."""
    wanted = Machine(
        kernel=KERNEL,
        initramfs=FIRST_ROOT,
        image=IMAGE,
        mounts=mounts_disk(spec),
        disk_bytes=disk_bytes(spec),
        modular=machine.modular,
        ticks_khz=machine.ticks_khz,
        memory_mib=memory_mib(spec),
        cpus=processors(spec),
        accelerator="kvm" if machine.kvm.kind == "hardware" else "tcg",
    )
    return qemu_arguments(wanted)
