"""The plan of a box in a machine of Firecracker's, which runs in an ordinary box of our own. Pure.

That outer box has all the walls of any box, the device of KVM, and what the machine is made of; Firecracker is its only
command. It takes the place of Firecracker's jailer: that needs root, and gives neither Landlock nor a user namespace.
"""

from __future__ import annotations

from immure.errors import RuntimeUnavailable, SpecError
from immure.host.facts import HostFacts, MachineFacts
from immure.plan.firecracker_config import MOST_PROCESSORS, Machine, configuration
from immure.plan.machine import (
    FIRST_ROOT,
    IMAGE,
    KERNEL,
    PLACE,
    Vmm,
    check_spec,
    checked_machine,
    machine_plan,
    memory_mib,
    mounts_disk,
    own_disk,
    processors,
)
from immure.plan.machine_space import disk_of
from immure.plan.model import Inputs, Plan
from immure.plan.operations import NODEV, NOEXEC, NOSUID, RDONLY, Bind, Dir, File, LandlockRule, TemplateOp
from immure.policy.landlock import Fs
from immure.spec.models import SandboxSpec

#: In the outer box: the program, what it boots from, and what it goes on from: a machine's memory, and the rest of it.
PROGRAM, CONFIG, MEMORY, STATE = (f"{PLACE}/{name}" for name in ("firecracker", "config", "memory", "state"))
#: Where its own disk is: a nameless file of a folder that has no others, opened by a descriptor that it starts with.
DISKS, DISK_FD = f"{PLACE}/disks", 4
#: Its sockets there.
API, VSOCK = "/tmp/api", "/tmp/vsock"
#: What its kernels are to be.
BUILT_IN = "a kernel with its drivers built in, without ACPI"
GET_BUILT_IN = "name another one by IMMURE_KERNEL, or use runtime: qemu"
#: It says on its console what is wrong, and nothing else.
_SERVES = (PROGRAM, "--level", "Error", "--api-sock", API)


def compile_firecracker(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """The plan of a box in a machine. Raises SpecError, ProtectionUnavailable and RuntimeUnavailable."""
    machine = checked_machine(spec, inputs, "Firecracker")
    check_spec(spec, inputs, "firecracker")
    _check_kvm(machine)
    _check_processors(spec)
    _check_kernel(machine)
    vmm = Vmm(
        runtime="firecracker",
        name="Firecracker",
        program=PROGRAM,
        carrier=_SERVES if machine.booted else (*_SERVES, "--config-file", CONFIG),
        kvm=True,
        files=_own_files(spec, machine),
        rules=_own_rules(spec),
    )
    return machine_plan(spec, facts, inputs, machine, vmm)


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
            need=BUILT_IN,
            have=f"{machine.kernel.path}, whose drivers are modules",
            hint=GET_BUILT_IN,
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
        mounts=mounts_disk(spec),
        disk=f"/proc/self/fd/{DISK_FD}" if own_disk(spec) else "",
        memory_mib=memory_mib(spec),
        cpus=processors(spec),
        emulated=machine.kvm.kind == "emulating",
    )
    return configuration(made)


def _own_files(spec: SandboxSpec, machine: MachineFacts) -> tuple[TemplateOp, ...]:
    """Firecracker itself, its configuration, and what it goes on from where it does not boot."""
    sealed = RDONLY | NOSUID | NODEV
    ops: list[TemplateOp] = [
        File(path=CONFIG[1:], mode=0o444, data=configured(spec, machine)),
        *_shown(PROGRAM, machine.vmm.path, sealed, mode=0o555),
    ]
    for place, source in zip((MEMORY, STATE), machine.booted, strict=False):
        ops += _shown(place, source[0], sealed | NOEXEC)
    if (disk := disk_of(spec, machine.disk)) is not None:
        # No file of it can be named there. It stands there for Landlock, which asks in which folder a file is.
        attributes = sealed | NOEXEC
        ops += [
            Dir(path=DISKS[1:], mode=0o755),
            Bind(path=DISKS[1:], source=disk[1], attributes=attributes),
        ]
    return tuple(ops)


def _own_rules(spec: SandboxSpec) -> tuple[LandlockRule, ...]:
    return (LandlockRule(path=DISKS, access=Fs.READ_FILE | Fs.WRITE_FILE),) if own_disk(spec) else ()


def _shown(place: str, source: str, attributes: int, mode: int = 0o444) -> list[TemplateOp]:
    return [File(path=place[1:], mode=mode, data=b""), Bind(path=place[1:], source=source, attributes=attributes)]
