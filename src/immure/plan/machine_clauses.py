"""The clauses of a plan with a virtual machine. Pure."""

from __future__ import annotations

from immure.host.facts import MachineFacts
from immure.plan.limits import DEFAULT_DISK_MIB, DEFAULT_PIDS, own_limits
from immure.plan.machine_space import shared_memory_mib
from immure.plan.report import Clause
from immure.policy.landlock import LEAST_ABI
from immure.spec.models import Mount, SandboxSpec


def machine_clauses(
    spec: SandboxSpec, machine: MachineFacts, keep: int, *, vmm: str, on_kvm: bool, memory_mib: int, cpus: Clause
) -> tuple[Clause, ...]:
    """A clause for each thing that the spec asks for. `cpus` is that of the box around the VMM, which `vmm` names."""
    by = f"{vmm} {machine.vmm.version}, {_accelerated(machine, on_kvm=on_kvm)}{_begun_from(machine)}"
    return (*_walls(spec, vmm, by), *_processes(spec, keep), *_mounts(spec), *_limits(spec, memory_mib, cpus))


def _begun_from(machine: MachineFacts) -> str:
    """What the machine does not begin with a boot of its own, in words."""
    return ", from the memory of a machine that had booted and had done nothing else" if machine.booted else ""


def _walls(spec: SandboxSpec, vmm: str, by: str) -> tuple[Clause, ...]:
    profile = spec.syscalls.profile
    return (
        Clause(clause="runtime", wanted=spec.runtime, got="exact", by=by),
        Clause(
            clause="syscalls.profile",
            wanted=profile if isinstance(profile, str) else "inline",
            got="exact",
            by=f"seccomp in the machine; {vmm} has filters of its own on the host",
        ),
        _landlock(spec),
        Clause(
            clause="network.mode",
            wanted=spec.network.mode,
            got="exact",
            by="a machine without a network device, with lo",
        ),
    )


def _landlock(spec: SandboxSpec) -> Clause:
    wanted, disks = spec.files.landlock, "the machine's disks, which hold its image and mounts and nothing else"
    if wanted == "off":
        return Clause(clause="files.landlock", wanted=wanted, got="stronger", by=disks)
    if spec.protections.get("landlock") == "required":
        by = f"Landlock in the machine, ABI {LEAST_ABI} at least, or there is no box; {disks}"
        return Clause(clause="files.landlock", wanted=wanted, got="exact", by=by)
    return Clause(
        clause="files.landlock",
        wanted=wanted,
        got="approximated",
        by=f"{disks}; Landlock in the machine where its kernel has it, which the evidence says",
        why="the kernel is asked when it runs; protections.landlock: required makes no box without it",
    )


def _processes(spec: SandboxSpec, keep: int) -> tuple[Clause, ...]:
    return (
        Clause(
            clause="processes.namespaces",
            wanted=spec.processes.namespaces,
            got="stronger",
            by="the machine's kernel, in an outer box with all namespaces",
        ),
        Clause(
            clause="processes.capabilities",
            wanted=" ".join(spec.processes.capabilities.add) or "none",
            got="stronger",
            by=f"capability sets {keep:#x} in the machine, which mean nothing to this host",
        ),
        Clause(
            clause="processes.user", wanted=str(spec.processes.user), got="exact", by="a user of the machine's kernel"
        ),
    )


def _mounts(spec: SandboxSpec) -> tuple[Clause, ...]:
    has_disk = spec.limits.disk_mib is not None
    return tuple(
        _mount(f"files.mounts[{index}]", mount, has_disk=has_disk) for index, mount in enumerate(spec.files.mounts)
    )


def _mount(name: str, mount: Mount, *, has_disk: bool) -> Clause:
    if mount.tmpfs is not None:
        place = "a disk of the machine's own" if has_disk and mount.size_mib is None else "the machine's own memory"
        return Clause(clause=name, wanted=f"tmpfs {mount.tmpfs}", got="exact", by=place)
    wanted = f"{mount.source} {mount.target} {mount.access}"
    if mount.access != "ro":
        return Clause(
            clause=name,
            wanted=wanted,
            got="approximated",
            by="a copy of before the start, above which the box writes in its private space; what it has changed is "
            "brought back when the box is closed, or its one command has ended",
            why="neither side sees meanwhile what the other changes, and a box that is lost brings nothing back",
        )
    return Clause(
        clause=name,
        wanted=wanted,
        got="approximated",
        by="a disk of the machine's, packed of it before the start, which nobody can write",
        why="the box does not see what changes in it later",
    )


def _limits(spec: SandboxSpec, memory_mib: int, cpus: Clause) -> tuple[Clause, ...]:
    limits = spec.limits
    return (
        Clause(
            clause="limits.memory_mib",
            wanted=str(limits.memory_mib or f"{memory_mib} (default)"),
            got="exact",
            by="the machine's memory, its kernel's included",
        ),
        cpus
        if limits.cpus
        else Clause(clause="limits.cpus", wanted="1 (default)", got="exact", by="the machine has one processor"),
        Clause(
            clause="limits.pids",
            wanted=str(limits.pids or f"{DEFAULT_PIDS} (default)"),
            got="approximated",
            by="RLIMIT_NPROC in the machine",
            why="counts the processes and threads of one user of the box",
        ),
        Clause(
            clause="limits.disk_mib",
            wanted=str(limits.disk_mib or f"{DEFAULT_DISK_MIB} (default)"),
            got="exact",
            by=_space(spec, memory_mib),
        ),
        *own_limits(spec),
    )


def _space(spec: SandboxSpec, memory_mib: int) -> str:
    if spec.limits.disk_mib is None:
        return "tmpfs size, within the machine's memory"
    return f"a disk of the machine's own; /dev/shm is {shared_memory_mib(spec, memory_mib)} MiB of its memory beside it"


def _accelerated(machine: MachineFacts, *, on_kvm: bool) -> str:
    if machine.kvm.kind == "hardware":
        return "on the processor's virtualisation"
    missing = machine.kvm.missing
    how = "on KVM without the processor's help" if on_kvm else "emulated in software"
    return how + (f": this host has {missing.have}" if missing is not None else "")
