"""What the kernel allows this user, by trying it in processes that end at once.

The native program makes the trials (`immure-init probe`), since most of them need a single-threaded process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path

from msgspec import Struct

from immure.host.facts import Missing
from immure.host.native import native_program

_SYS_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_CREATE_RULESET_VERSION = 1


class Tried(Struct, frozen=True):
    """Outcomes. None means that it works."""

    seccomp: bool
    user_namespaces: Missing | None
    new_proc: Missing | None
    ptrace: Missing | None


def landlock_abi() -> int:
    """The kernel's Landlock ABI, 0 where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    answer = libc.syscall(ctypes.c_long(_SYS_LANDLOCK_CREATE_RULESET), None, 0, _LANDLOCK_CREATE_RULESET_VERSION)
    return max(0, int(answer))


def try_host() -> Tried:
    """Runs the trials. Raises RuntimeUnavailable where the native program can't be run."""
    answer = subprocess.run([native_program(), "probe"], stdout=subprocess.PIPE, check=False)
    outcome: dict[str, int] = {}
    for line in answer.stdout.decode(errors="replace").splitlines():
        name, _, value = line.partition("=")
        if value.isdigit():
            outcome[name] = int(value)
    return Tried(
        seccomp=outcome.get("seccomp", errno.ENOSYS) == 0,
        user_namespaces=why_no_user_namespaces(outcome.get("user_namespaces", errno.EIO), _mounts()),
        new_proc=_new_proc(outcome.get("new_proc", errno.EIO)),
        ptrace=_ptrace(outcome.get("ptrace", errno.EIO)),
    )


def _mounts() -> str:
    """Empty where there is no /proc."""
    try:
        return Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return ""


def is_chroot(mounts: str) -> bool:
    """Whether our root is no mount, by what /proc/self/mountinfo says: a process in a chroot. proc_pid_mountinfo(5)."""
    lines = [line.split(" ") for line in mounts.splitlines()]
    points = [line[4] for line in lines if len(line) > 4]
    return bool(points) and "/" not in points


def why_no_user_namespaces(number: int, mounts: str) -> Missing | None:
    """What an errno of clone(CLONE_NEWUSER) comes of; None for 0. `mounts` is /proc/self/mountinfo."""
    if number == 0:
        return None
    need = "user namespaces for this user"
    if number == errno.EPERM and is_chroot(mounts):
        return Missing(
            need=need,
            have=f"{os.strerror(number)}, as always in a chroot",
            command="leave the chroot, or enter that folder with systemd-nspawn, which makes it a root of its own",
        )
    commands = {
        errno.ENOSPC: "sysctl -w user.max_user_namespaces=10000",
        errno.EPERM: "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or "
        "sysctl -w kernel.unprivileged_userns_clone=1 (Debian 10), or run the container with "
        "--security-opt seccomp=unconfined",
        errno.ENOSYS: "use a kernel with CONFIG_USER_NS",
        errno.EINVAL: "use a kernel with CONFIG_USER_NS",
    }
    return Missing(need=need, have=os.strerror(number), command=commands.get(number))


def _new_proc(number: int) -> Missing | None:
    if number == 0:
        return None
    return Missing(
        need="a new /proc in a namespace of its own, which the kernel allows only where the whole /proc is in sight",
        have=os.strerror(number),
        command="run the container with --security-opt systempaths=unconfined, or unmask /proc",
    )


def _ptrace(number: int) -> Missing | None:
    if number == 0:
        return None
    return Missing(
        need="ptrace of own descendants, by which a box is inspected before its first command",
        have=os.strerror(number),
        command="sysctl -w kernel.yama.ptrace_scope=1, or allow ptrace in the container's seccomp profile",
    )
