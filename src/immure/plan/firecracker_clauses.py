"""The clauses of a plan with a machine of Firecracker's. Pure."""

from __future__ import annotations

from immure.host.facts import MachineFacts
from immure.plan.qemu_clauses import begun_from, machine_clauses
from immure.plan.report import Clause
from immure.spec.models import SandboxSpec


def firecracker_clauses(
    spec: SandboxSpec, machine: MachineFacts, keep: int, *, memory_mib: int, cpus: Clause
) -> tuple[Clause, ...]:
    """A clause for each thing that the spec asks for. `cpus` is that of the box around Firecracker."""
    by = f"Firecracker {machine.vmm.version}, {_accelerated(machine)}{begun_from(machine)}"
    return machine_clauses(spec, keep, vmm="Firecracker", by=by, memory_mib=memory_mib, cpus=cpus)


def _accelerated(machine: MachineFacts) -> str:
    if machine.kvm.kind == "hardware":
        return "on the processor's virtualisation"
    missing = machine.kvm.missing
    return "on KVM without the processor's help" + (f": this host has {missing.have}" if missing is not None else "")
