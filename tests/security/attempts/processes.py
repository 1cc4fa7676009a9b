"""Reaching other processes: the box's own init, which is more than the workload is, and the host's."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import time
from pathlib import Path

from security.attempt import Denied, attempt, granted_by
from security.calls import call

_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206
_SIGNALS = {name: {"number": int(signal.Signals[name])} for name in ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGCONT")}
_KCMP_VM = 1
_F_SETSIG = 10
_RLIMIT_NOFILE = 7
_MADV_COLD = 20
_BOX = "init"
_GONE = "ESRCH"


@attempt("EPERM", each_scene=_BOX, cases=_SIGNALS)
def send_signal(pid: int, number: int) -> str:
    os.kill(pid, number)
    return signal.Signals(number).name


@attempt("EPERM", each_scene=_BOX)
def send_signal_by_descriptor(pid: int) -> str:
    call("pidfd_send_signal", call("pidfd_open", pid, 0), int(signal.SIGKILL), None, 0)
    return "killed"


@attempt("EPERM", each_scene=_BOX, cases={"tkill": {"tgkill": False}, "tgkill": {"tgkill": True}})
def send_signal_to_thread(pid: int, tgkill: bool) -> str:
    call(*(("tgkill", pid, pid) if tgkill else ("tkill", pid)), int(signal.SIGKILL))
    return "killed"


@attempt("EPERM", each_scene=_BOX)
def queue_signal(pid: int) -> str:
    sent_by_queue = -1
    call("rt_sigqueueinfo", pid, int(signal.SIGKILL), struct.pack("iii116x", signal.SIGKILL, 0, sent_by_queue))
    return "killed"


@attempt("KEPT EPERM", each_scene=_BOX)
def send_signal_by_pipe(pid: int) -> str:
    """Let the kernel send it: to the owner of a pipe, when something arrives there."""
    read, write = os.pipe()
    fcntl.fcntl(read, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(read, fcntl.F_SETOWN, pid)
    fcntl.fcntl(read, fcntl.F_SETFL, os.O_ASYNC)
    os.write(write, b"x")
    time.sleep(0.1)
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    if state not in "ZX":
        raise Denied("KEPT", f"in state {state}")
    return "killed"


@attempt("EPERM", each_scene=_BOX)
def trace(pid: int) -> str:
    call("ptrace", _PTRACE_ATTACH, pid, 0, 0)
    return "attached"


@attempt("EPERM", each_scene=_BOX)
def trace_without_stop(pid: int) -> str:
    call("ptrace", _PTRACE_SEIZE, pid, 0, 0)
    return "seized"


@attempt("EPERM EACCES ENOSYS", each_scene=_BOX)
def take_descriptor(pid: int) -> str:
    return f"descriptor {call('pidfd_getfd', call('pidfd_open', pid, 0), 0, 0)}"


@attempt("EPERM ENOSYS", each_scene=_BOX, cases={"read": {"way": "readv"}, "write": {"way": "writev"}})
def memory(pid: int, way: str) -> str:
    """Nothing is at address 1: EFAULT, after the right to look has been checked."""
    ours = ctypes.create_string_buffer(8)
    local = struct.pack("QQ", ctypes.addressof(ours), 8)
    with granted_by("EFAULT"):
        call(f"process_vm_{way}", pid, local, 1, struct.pack("QQ", 1, 8), 1, 0)
    return "allowed"


@attempt("EPERM EACCES ENOSYS", each_scene=_BOX)
def compare(pid: int) -> str:
    """Learn from kcmp how addresses in the kernel compare."""
    return f"order {call('kcmp', os.getpid(), pid, _KCMP_VM, 0, 0)}"


@attempt("EPERM EACCES ENOSYS", each_scene=_BOX, needs_root=True)
def advise_memory(pid: int) -> str:
    """Push another process's memory out; no range is given, the right is checked."""
    call("process_madvise", call("pidfd_open", pid, 0), None, 0, _MADV_COLD, 0)
    return "allowed"


@attempt("EPERM", each_scene=_BOX)
def limits_of_process(pid: int) -> str:
    limits = ctypes.create_string_buffer(16)
    call("prlimit64", pid, _RLIMIT_NOFILE, None, limits)
    return str(struct.unpack("QQ", limits))


@attempt("EPERM EACCES", each_scene=_BOX)
def slow_down(pid: int) -> str:
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    return "slowed down"


@attempt("EPERM", each_scene=_BOX)
def tie_to_processor(pid: int) -> str:
    os.sched_setaffinity(pid, os.sched_getaffinity(0))
    return "tied"


@attempt("EPERM", each_scene=_BOX)
def schedule(pid: int) -> str:
    os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    return "in batches"


@attempt(_GONE, scenes="host_process", cases=_SIGNALS)
def send_signal_to_host(pid: int, number: int) -> str:
    """Name a process of the host by the number that it has there."""
    os.kill(pid, number)
    return signal.Signals(number).name


@attempt(_GONE, scenes="host_process")
def trace_host(pid: int) -> str:
    call("ptrace", _PTRACE_SEIZE, pid, 0, 0)
    return "seized"


@attempt(_GONE, scenes="host_process")
def hold_host(pid: int) -> str:
    return f"descriptor {call('pidfd_open', pid, 0)}"


@attempt(_GONE, scenes="host_process")
def memory_of_host(pid: int) -> str:
    return memory(pid, "readv")


@attempt(_GONE, scenes="host_process")
def limits_of_host(pid: int) -> str:
    return limits_of_process(pid)


@attempt(_GONE, scenes="host_process")
def slow_down_host(pid: int) -> str:
    return slow_down(pid)
