"""What starts a virtual machine: QEMU's arguments, and its kernel's. Pure; paths are those of the box that QEMU is in.

The machine is QEMU's `microvm`, with nothing but an image that it can't write, a channel to our init in it, a source of
randomness and a console that only talks. Sources: qemu(1), docs/system/i386/microvm.rst; Linux's
Documentation/admin-guide/kernel-parameters.rst.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

#: The port of the machine's console device that our init looks for.
CHANNEL = "immure"
#: Descriptors that QEMU is started with: of its channel and its monitor, sockets both, of the machine's memory, and of
#: its own disk where it has one.
CHANNEL_FD, MONITOR_FD, MEMORY_FD, DISK_FD = 0, 1, 3, 4
#: What the kernel says, and our init before its channel: in the space of the box that QEMU is in, which bounds it.
CONSOLE = "/tmp/console"

#: The end of the first process ends the machine, and nothing boots it again.
_KERNEL = ("console=ttyS0", "quiet", "reboot=t", "panic=-1")
#: An emulator is no processor that anybody could spy on, and has no clock that needs to be tried.
_KERNEL_EMULATED = ("mitigations=off", "nokaslr", "no_timer_check", "tsc=reliable")
#: Without the string instructions that a kernel copies by where they are said to be quick: an emulator does them byte
#: by byte, and half as fast as anything else.
_EMULATED = "max,erms=off,fsrm=off"
_MEMORY = f"memory-backend-file,id=memory,mem-path=/proc/self/fd/{MEMORY_FD},size={{}}M"
_SHARED, _PRIVATE = ",share=on", ",share=off"
_REFUSED = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


class Machine(Struct, frozen=True):
    """One machine. Its console goes to a file; its channel, monitor and memory are descriptors of who starts it."""

    kernel: str
    initramfs: str
    image: str
    #: A second disk, with the sources of the user's mounts; empty where there are none.
    mounts: str = ""
    #: A last disk, which it can write, of this size; 0 where it has none.
    disk_bytes: int = 0
    #: The kernel's drivers are modules, which find devices by ACPI; else it is told of them on its command line.
    modular: bool = False
    #: How quickly the processor's counter runs, for a kernel that has nothing to measure it by; None where it has.
    ticks_khz: int | None = None
    memory_mib: int = 256
    cpus: int = 1
    #: The processor's virtualisation, or none.
    accelerator: Literal["kvm", "tcg"] = "tcg"


def kernel_words(machine: Machine) -> str:
    """The kernel's command line. What it does not know of it goes to our init, as variables."""
    ours = (f"IMMURE_CHANNEL=port:{CHANNEL}", "IMMURE_DISK=/dev/vda", "IMMURE_FORMAT=erofs")
    mounts = ("IMMURE_MOUNTS=/dev/vdb",) if machine.mounts else ()
    emulated = _KERNEL_EMULATED if machine.accelerator == "tcg" else ()
    ticks = (f"tsc_early_khz={machine.ticks_khz}",) if machine.ticks_khz and machine.accelerator == "tcg" else ()
    return " ".join((*_KERNEL, *emulated, *ticks, *ours, *mounts))


def qemu_arguments(machine: Machine) -> tuple[str, ...]:
    """What follows the program's name."""
    disks = {"image": machine.image, **({"mounts": machine.mounts} if machine.mounts else {})}
    return (
        *("-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-sandbox", _REFUSED),
        *("-machine", f"microvm,acpi={_on(machine.modular)},memory-backend=memory", "-accel", machine.accelerator),
        *("-object", _MEMORY.format(machine.memory_mib) + _SHARED),
        *("-cpu", _EMULATED if machine.accelerator == "tcg" else "host"),
        *("-smp", _processors(machine), "-m", f"{machine.memory_mib}M"),
        *("-kernel", machine.kernel, "-initrd", machine.initramfs, "-append", kernel_words(machine)),
        *(word for name, path in disks.items() for word in _disk(name, path)),
        *(_own_disk(machine.disk_bytes) if machine.disk_bytes else ()),
        *("-chardev", f"socket,id=channel,fd={CHANNEL_FD}", "-device", "virtio-serial-device"),
        *("-device", f"virtserialport,chardev=channel,name={CHANNEL}"),
        *("-device", "virtio-rng-device"),
        *("-chardev", f"file,id=console,path={CONSOLE}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={MONITOR_FD}", "-mon", "chardev=monitor,mode=control"),
    )


def _processors(machine: Machine) -> str:
    """Where QEMU emulates a machine's only processor, that has room for another beside it: before 8.0 the barriers of
    one that stays alone are left out, though its devices have threads of their own: each could miss the other's word.
    """
    return "1,maxcpus=2" if machine.cpus == 1 and machine.accelerator == "tcg" else str(machine.cpus)


def waking_arguments(arguments: tuple[str, ...], *, shared: bool) -> tuple[str, ...]:
    """The same machine, that waits for the state that it is to go on from. One whose memory is not `shared` leaves the
    file as it is: what it writes is its own.
    """
    found = (
        one.removesuffix(_SHARED) + (_SHARED if shared else _PRIVATE) if _SHARED in one else one for one in arguments
    )
    return (*found, "-incoming", "defer")


def memory_bytes(arguments: tuple[str, ...]) -> int:
    """What the machine that these start has."""
    return int(arguments[arguments.index("-m") + 1].removesuffix("M")) << 20


def _disk(name: str, path: str) -> tuple[str, ...]:
    """One that can't be written."""
    file = f"file.driver=file,file.filename={_value(path)},file.read-only=on"
    return "-blockdev", f"driver=raw,node-name={name},read-only=on,{file}", "-device", f"virtio-blk-device,drive={name}"


def _own_disk(size: int) -> tuple[str, ...]:
    """One that it can write, of which nothing is to last. Where this host has no more room, the guest hears of it: QEMU
    would have the machine stand still. What the guest discards is a hole again.
    """
    file = "file.driver=file,file.filename=/dev/fdset/1,file.locking=off,file.discard=unmap"
    drive = f"driver=raw,node-name=own,size={size},discard=unmap,cache.no-flush=on,{file},file.cache.no-flush=on"
    device = "virtio-blk-device,drive=own,werror=report,rerror=report"
    return "-add-fd", f"fd={DISK_FD},set=1", "-blockdev", drive, "-device", device


def _on(wanted: bool) -> str:
    return "on" if wanted else "off"


def _value(text: str) -> str:
    """Among options a comma is written twice."""
    return text.replace(",", ",,")
