"""Becoming someone else, or getting rid of what holds one."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import time
from pathlib import Path

from security.attempt import Denied, Outside, attempt
from security.calls import call, checked, function

_CAP_SYS_ADMIN = 21
_CAPABILITY_VERSION = 0x2008_0522
_PR_SET_SECCOMP, _PR_CAPBSET_READ, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 22, 23, 38, 39
_RLIMIT_CORE = 4
_INFINITY = 0xFFFF_FFFF_FFFF_FFFF


def _status(field: str, process: int | str = "self") -> str:
    return _all_status(process)[field]


def _all_status(process: int | str = "self") -> dict[str, str]:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@attempt("EPERM EINVAL", needs_root=True, cases={"root": {"user": 0}, "other": {"user": 1001}})
def become(user: int) -> str:
    os.setresuid(user, user, user)
    return f"user {os.getuid()}"


@attempt("EPERM EINVAL", needs_root=True)
def become_group() -> str:
    os.setresgid(0, 0, 0)
    return f"group {os.getgid()}"


@attempt("EPERM EINVAL", needs_root=True)
def take_groups() -> str:
    os.setgroups([0, 42])
    return str(os.getgroups())


@attempt("NO_GAIN", needs_root=True)
def belongs_to_root_group() -> str:
    """Still be in a group of the caller's."""
    if 0 not in {os.getgid(), os.getegid(), *os.getgroups()}:
        raise Denied("NO_GAIN", str(os.getgroups()))
    return str(os.getgroups())


@attempt("KEPT", cases={"user": {"file": "uid_map"}, "group": {"file": "gid_map"}})
def maps_root_of_the_host(file: str) -> str:
    """Be in a user namespace in which some id is root on the host."""
    ranges = [[int(word) for word in line.split()] for line in Path("/proc/self", file).read_text().splitlines()]
    if not any(outside == 0 for _, outside, _ in ranges):
        raise Denied("KEPT", str(ranges))
    return str(ranges)


@attempt("EPERM", needs_root=True)
def regain_capability() -> str:
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0), 8)
    sets = (ctypes.c_uint32 * 6)()
    call("capget", header, sets)
    sets[0] |= 1 << _CAP_SYS_ADMIN
    sets[1] |= 1 << _CAP_SYS_ADMIN
    call("capset", header, sets)
    return _status("CapEff")


@attempt("KEPT")
def hold_capability() -> str:
    """Hold any capability, in any set: the bounding one gives it back with a setuid file."""
    # gVisor of 2024 has no ambient set.
    sets = {name: int(value, 16) for name, value in _all_status().items() if name.startswith("Cap")}
    assert {"CapPrm", "CapEff", "CapBnd"} <= set(sets)
    if not any(sets.values()):
        raise Denied("KEPT", "all sets are empty")
    return str(sets)


@attempt("KEPT")
def shed_filter() -> str:
    """Run without a system call filter."""
    function("prctl")(_PR_SET_SECCOMP, 0, 0, 0, 0)
    if (mode := _status("Seccomp")) != "0":
        raise Denied("KEPT", f"mode {mode}, {_all_status().get('Seccomp_filters')} filters")
    return "no filter"


@attempt("KEPT", outside=Outside.PLAIN_USER)
def shed_no_new_privileges() -> str:
    prctl = function("prctl")
    prctl(_PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)
    if checked(prctl(_PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)):
        raise Denied("KEPT")
    return "off"


@attempt("KEPT", outside=Outside.PLAIN_USER)
def bounding_set() -> str:
    if not checked(function("prctl")(_PR_CAPBSET_READ, _CAP_SYS_ADMIN, 0, 0, 0)):
        raise Denied("KEPT", "not in the bounding set")
    return "in the bounding set"


@attempt("NO_GAIN EACCES ENOENT", scenes="setuid_of_the_image", outside=Outside.PLAIN_USER)
def setuid_of_the_image(program: str) -> str:
    """Run a setuid program of the host's; it waits for its input while its ids are read."""
    return _gain(program)


@attempt("NO_GAIN EACCES EPERM", scenes="setuid_in_mount", outside=Outside.PLAIN_USER, needs_root=True)
def setuid_in_mount(program: str) -> str:
    """Run a setuid program that lies in a mounted folder."""
    return _gain(program)


def _gain(program: str) -> str:
    with subprocess.Popen(
        [program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        deadline = time.monotonic() + 0.5  # the new ids come a moment after Popen has returned
        while True:
            real, effective = _status("Uid", run.pid).split()[:2]
            if real != effective or time.monotonic() > deadline:
                break
        run.kill()
    if real == effective:
        raise Denied("NO_GAIN", f"user {real}")
    return f"user {real} runs as {effective}"


@attempt("EPERM", scenes="workspace")
def core_dump(work: str) -> str:
    """A core pattern with a pipe would start a program of the host's, as root."""
    os.chdir(work)
    call("prlimit64", 0, _RLIMIT_CORE, struct.pack("QQ", _INFINITY, _INFINITY), None)
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGQUIT)
        signal.pause()
    _, status = os.waitpid(child, 0)
    if not os.WCOREDUMP(status):
        raise Denied("ABSENT", "no core")
    return "dumped"


@attempt("EACCES EPERM", needs_root=True)
def raise_priority() -> str:
    os.setpriority(os.PRIO_PROCESS, 0, -5)
    return "raised"


@attempt("EPERM", needs_root=True)
def run_in_real_time() -> str:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    return "first in, first out"


@attempt("EPERM", needs_root=True)
def disk_in_real_time() -> str:
    real_time, this_process = 1 << 13, 1
    call("ioprio_set", this_process, 0, real_time)
    return "set"
