"""What a machine is made with on this host, looked at and made ready."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

import msgspec

from immure.engine import cache
from immure.engine.kvm import kvm_facts
from immure.engine.machine_images import GET_PACKER, PACKER, first_root, packed_folder, packed_host, packed_mounts
from immure.engine.ticks import ticks_khz
from immure.errors import SpecError
from immure.host.disks import find_disks
from immure.host.facts import (
    DiskFacts,
    HostFacts,
    HostImage,
    ImageFolder,
    MachineFacts,
    Missing,
    ProgramFacts,
    SourceFacts,
)
from immure.host.identity import identity_of
from immure.host.kernel_modules import modules_of
from immure.host.machines import find_firecracker, find_kernel, find_qemu
from immure.plan.compile import runtime_of
from immure.plan.firecracker import BUILT_IN, GET_BUILT_IN
from immure.plan.model import Inputs
from immure.spec.models import SandboxSpec

#: 1 where each machine is to boot by itself, and none to go on from the memory of one that had.
BOOTS_EACH = "IMMURE_BOOT_EACH"


def usual_vmm() -> str:
    """The runtime of a machine for which nobody has named one: QEMU; Firecracker where that alone is here."""
    lacks_qemu = isinstance(find_qemu(), Missing)
    return "firecracker" if lacks_qemu and isinstance(find_firecracker(), ProgramFacts) else "qemu"


def missing_for_machines(runtime: str) -> tuple[Missing, ...]:
    """What this host lacks for any machine of a runtime, whoever runs its kernel."""
    vmm, kernel = find_firecracker() if runtime == "firecracker" else find_qemu(), find_kernel()
    found = [one for one in (vmm, kernel) if isinstance(one, Missing)]
    if runtime == "firecracker" and isinstance(kernel, ProgramFacts):
        found += _missing_for_firecracker(kernel)
    if shutil.which(PACKER) is None:
        found.append(Missing(need=f"{PACKER}, by which images are packed", have="none on PATH", command=GET_PACKER))
    return tuple(found)


def _missing_for_firecracker(kernel: ProgramFacts) -> list[Missing]:
    try:
        modules = modules_of(kernel.path)
    except (OSError, ValueError) as error:
        return [_no_kernel(kernel, error)]
    if isinstance(modules, Missing):
        return [modules]
    have = f"{kernel.path}, whose drivers are modules"
    return [Missing(need=BUILT_IN, have=have, command=GET_BUILT_IN)] if modules else []


def _no_kernel(kernel: ProgramFacts, error: Exception) -> Missing:
    return Missing(need="a kernel for guests, with its modules", have=f"{kernel.path}: {error}")


def look_at_machine(
    spec: SandboxSpec, facts: HostFacts, image: ImageFolder | None, sources: Sequence[SourceFacts]
) -> MachineFacts | Missing:
    """Programs and files of a box in a machine, whose image and mounts are packed where they have not been.

    An image of None is `image: host`, and mounts belong to the user of commands. Raises SpecError for what can't be
    read, RuntimeUnavailable without a packer and SetupFailed.
    """
    vmm, kernel = find_firecracker() if runtime_of(spec) == "firecracker" else find_qemu(), find_kernel()
    if not isinstance(vmm, ProgramFacts):
        return vmm
    if not isinstance(kernel, ProgramFacts):
        return kernel
    disk = _disk(spec)
    if isinstance(disk, Missing):
        return disk
    try:
        modules = modules_of(kernel.path, with_disk=disk is not None)
        first = first_root(modules) if not isinstance(modules, Missing) else None
    except (OSError, ValueError) as error:
        return _no_kernel(kernel, error)
    if first is None or isinstance(modules, Missing):
        assert isinstance(modules, Missing)
        return modules
    files = [str(first), _image(image, facts.image)]
    if sources:
        files.append(_mounts(sources, spec.processes.user))
    made = [(path, identity_of(path) or ()) for path in files]
    machine = MachineFacts(
        vmm=vmm,
        kernel=kernel,
        files=tuple(made),
        kvm=kvm_facts(),
        modular=bool(modules),
        ticks_khz=ticks_khz() if modules else None,
        disk=disk,
    )
    if not _goes_on(spec, machine):
        return machine
    from immure.engine.booted_machines import find_booted

    return msgspec.structs.replace(machine, booted=find_booted(spec, facts, machine))


def make_ready(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Inputs:
    """With a machine that has booted, where boxes of this runtime go on from one and there is none yet.

    That takes as long as a boot. Raises RuntimeUnavailable and BoxError.
    """
    machine = inputs.machine
    if not isinstance(machine, MachineFacts) or machine.booted or not _goes_on(spec, machine):
        return inputs
    from immure.engine.booted_machines import make_booted

    booted = make_booted(spec, facts, inputs, machine)
    return msgspec.structs.replace(inputs, machine=msgspec.structs.replace(machine, booted=booted))


def _goes_on(spec: SandboxSpec, machine: MachineFacts) -> bool:
    """Boxes do, unless each is to boot, or can't be made at all. Folders of this host are packed anew whenever they
    change: booting with them is no slower than booting another machine to go on from.
    """
    if os.environ.get(BOOTS_EACH) == "1":
        return False
    if runtime_of(spec) == "firecracker":
        return machine.kvm.kind != "absent"
    return all(mount.source is None for mount in spec.files.mounts)


def _disk(spec: SandboxSpec) -> DiskFacts | Missing | None:
    """How its own disk is made, where it is to have one."""
    return machine_disks() if spec.limits.disk_mib is not None else None


def machine_disks() -> DiskFacts | Missing:
    """How machines' own disks are made here."""
    above = cache.folder()
    return find_disks(None if above is None else f"{above}/disks")


def _image(image: ImageFolder | None, host: HostImage) -> str:
    try:
        return str(packed_folder(image.path) if image is not None else packed_host(host))
    except OSError as error:
        name = image.path if image is not None else "host"
        raise _unreadable(f"the image {name}", "$.spec.image", error) from error


def _mounts(sources: Sequence[SourceFacts], user: int) -> str:
    try:
        return str(packed_mounts(sources, user))
    except OSError as error:
        raise _unreadable("a mount", "$.spec.files.mounts", error) from error


def _unreadable(what: str, where: str, error: OSError) -> SpecError:
    return SpecError(
        f"{what} can't be packed for a machine",
        path=where,
        need="a folder that this user can read whole",
        have=f"{error.filename}: {os.strerror(error.errno) if error.errno else error.strerror}",
    )
