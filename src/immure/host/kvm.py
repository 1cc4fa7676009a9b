"""How this host's KVM runs the kernel of a guest. It is timed, never guessed from the processor's flags alone.

The native program runs a tiny guest (`immure-init kvm`). linux/kvm.h; on x86-64 alone.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

from immure.host.facts import KvmFacts, Missing
from immure.host.native import native_program

DEVICE = "/dev/kvm"
#: A turn of the loop is two instructions. Hardware takes a nanosecond or two, an emulator hundreds.
_QUICK_NS = 100
_TIMEOUT_S = 20.0
_OTHER_MACHINE = "use a machine whose processor virtualises; in a VM, have its host allow nested virtualisation"


def try_kvm() -> KvmFacts:
    """Runs the guest, which takes about 10 ms. Raises RuntimeUnavailable where the native program can't be run."""
    arch = os.uname().machine
    if arch != "x86_64":
        return _absent("a guest to try KVM with", f"none for {arch} in this version", None)
    try:
        told = subprocess.run(
            [native_program(), "kvm"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _absent("a guest that comes to its end", "none in time", _OTHER_MACHINE)
    flags = set(Path("/proc/cpuinfo").read_text(errors="replace").split())
    return judge(told.stdout, bool(flags & {"vmx", "svm"}))


def judge(told: bytes, virtualises: bool) -> KvmFacts:
    """What the native program's line comes to on a processor that has such a flag, or has none."""
    line = re.fullmatch(rb"(\w+)=(\d{1,18})\n?", told)
    if line is None:
        return _absent("a guest that comes to its end", "none in time", _OTHER_MACHINE)
    step, number = line[1].decode(), int(line[2])
    if step != "turn_ns":
        return _refused(step, number)
    if number > _QUICK_NS:
        have = f"KVM that emulates a guest's kernel ({number} ns for two instructions)"
        return KvmFacts("emulating", number, Missing("hardware virtualisation", have, _OTHER_MACHINE))
    if not virtualises:
        have = "KVM on a processor that shows neither vmx nor svm"
        return KvmFacts("software", number, Missing("hardware virtualisation", have, _OTHER_MACHINE))
    return KvmFacts("hardware", number)


def _refused(step: str, number: int) -> KvmFacts:
    have = os.strerror(number)
    if step != "open":
        return _absent("a guest of KVM's", f"{step}: {have}", _OTHER_MACHINE)
    if number in (errno.EACCES, errno.EPERM):
        return _absent(f"{DEVICE} that this user may open", have, f"add the user to the group of {DEVICE}, mostly kvm")
    return _absent(DEVICE, have, "load the module kvm_intel or kvm_amd; in a container, pass the device in")


def _absent(need: str, have: str, command: str | None) -> KvmFacts:
    return KvmFacts("absent", None, Missing(need=need, have=have, command=command))
