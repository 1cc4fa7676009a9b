"""What virtual machines have in common, whoever runs them: their moment, and what this host sees of them."""

from __future__ import annotations

import os
import secrets
import time

import msgspec

from immure.host.tree import below

_ENTROPY_BYTES = 64
_STATUS_BYTES = 4096


def at_this_moment(configuration: bytes) -> bytes:
    """The same for a machine that wakes up now."""
    return msgspec.msgpack.encode({**msgspec.msgpack.decode(configuration), "moment": msgspec.Raw(this_moment())})


def this_moment() -> bytes:
    """What a machine is to know that wakes up now: the time, and randomness that no other one has."""
    return msgspec.msgpack.encode({"time_ns": time.time_ns(), "entropy": secrets.token_bytes(_ENTROPY_BYTES)})


def carriers(pid: int) -> dict[str, bytes]:
    """Items `vmm/PID/…` of what runs in the outer box, and this host's own kernel."""
    items: dict[str, bytes] = {}
    for one in below(pid):
        try:
            with open(f"/proc/{one}/status", "rb") as file:  # noqa: PTH123
                status = file.read(_STATUS_BYTES)
        except OSError:
            # It has ended meanwhile.
            continue
        items[f"vmm/{one}/status"] = status
        items[f"vmm/{one}/exe"] = _program_of(one)
        items[f"vmm/{one}/kvm"] = _kvm_of(one)
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:  # noqa: PTH123
            items["host/boot_id"] = file.read(_STATUS_BYTES)
    except OSError:
        # Then nothing shows that the kernels are two.
        pass
    return items


def _kvm_of(pid: int) -> bytes:
    """Whether a process has a machine of KVM's, by the names of what it has open. Documentation/virt/kvm/api.rst."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as found:
            names = [os.readlink(entry.path) for entry in found]  # noqa: PTH115
    except OSError as error:
        return os.strerror(error.errno or 0).encode()
    return b"a machine" if "anon_inode:kvm-vm" in names else b"nothing"


def _program_of(pid: int) -> bytes:
    try:
        return os.readlink(f"/proc/{pid}/exe").encode(errors="surrogateescape")  # noqa: PTH115
    except OSError as error:
        return os.strerror(error.errno or 0).encode()


def reason_on(console: str) -> str:
    """The line of a console that says why a machine ended, as far as there is one."""
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    ours = [line for line in lines if line.startswith("immure-init:") or "Kernel panic" in line]
    return (ours or lines or [""])[0]
