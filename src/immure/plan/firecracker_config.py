"""What starts a machine of Firecracker's: its configuration, and its kernel's command line. Pure.

The machine has an image that it can't write, vsock for the channel to our init, a source of randomness, and a serial
console that only talks. Paths are those of the box that Firecracker is in. Sources: Firecracker 1.12,
src/firecracker/swagger/firecracker.yaml and docs/getting-started.md; Linux,
Documentation/admin-guide/kernel-parameters.rst.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

#: Where our init listens, in the machine: below 1024, so that none of its commands can take it first.
PORT = 1
#: The machine's own number; 0 to 2 mean something else. vsock(7).
_GUEST_CID = 3
#: VMM and guest agree on no more (KVM_MAX_VCPUS aside: Firecracker's own bound).
MOST_PROCESSORS = 32

#: The end of the first process ends the machine: a reset by the keyboard's controller is its only way to say so.
_KERNEL = ("console=ttyS0", "quiet", "reboot=k", "panic=-1", "pci=off")
#: KVM that interprets a guest's kernel lacks some instructions, and shows its kernel no clock to calibrate by. The
#: kernel's own checks would take the longest of all.
_KERNEL_EMULATED = (
    "lpj=5000000",
    "tsc=reliable",
    "no_timer_check",
    "noapic",
    "noxsave",
    "nofsgsbase",
    "nopcid",
    "noinvpcid",
    "nosmap",
    "nosmep",
    "mitigations=off",
    "clearcpuid=cx16,popcnt,smap,smep,rdrand,rdseed,fsgsbase,invpcid,rdtscp,rdpid,umip,erms,fsrm",
    # A variable of our init's: such a kernel, without XSAVE, keeps only the lower halves of vector registers, and the
    # processor shows programs all of them.
    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load,-AVX",
)


class Machine(Struct, frozen=True):
    """One machine of Firecracker's."""

    kernel: str
    initramfs: str
    image: str
    vsock: str
    memory_mib: int
    #: A second disk, with the sources of the user's mounts; empty where there are none.
    mounts: str = ""
    #: A last disk, which it can write; empty where it has none.
    disk: str = ""
    cpus: int = 1
    #: KVM interprets the guest's kernel.
    emulated: bool = False


def kernel_words(machine: Machine) -> str:
    """The kernel's command line. What it does not know of it goes to our init, as variables."""
    ours = (f"IMMURE_CHANNEL=vsock:{PORT}", "IMMURE_DISK=/dev/vda", "IMMURE_FORMAT=erofs")
    mounts = ("IMMURE_MOUNTS=/dev/vdb",) if machine.mounts else ()
    return " ".join((*_KERNEL, *(_KERNEL_EMULATED if machine.emulated else ()), *ours, *mounts))


def configuration(machine: Machine) -> bytes:
    """What Firecracker reads as its `--config-file`."""
    boot = {
        "kernel_image_path": machine.kernel,
        "initrd_path": machine.initramfs,
        "boot_args": kernel_words(machine),
    }
    disks = {"image": machine.image, **({"mounts": machine.mounts} if machine.mounts else {})}
    drives = [_disk(name, path) for name, path in disks.items()]
    if machine.disk:
        drives.append({**_disk("own", machine.disk), "is_read_only": False})
    return msgspec.json.encode(
        {
            "boot-source": boot,
            "drives": drives,
            "machine-config": {"vcpu_count": machine.cpus, "mem_size_mib": machine.memory_mib},
            "vsock": {"guest_cid": _GUEST_CID, "uds_path": machine.vsock},
            "entropy": {},
        }
    )


def _disk(name: str, path: str) -> dict[str, object]:
    """One that can't be written."""
    return {"drive_id": name, "path_on_host": path, "is_root_device": False, "is_read_only": True}
