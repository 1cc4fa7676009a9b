"""Calls that manage the kernel or widen what of it can be attacked."""

from __future__ import annotations

import ctypes
import struct
import subprocess

from security.attempt import attempt, granted_by
from security.calls import NUMBERS, X32, call, raise_errno
from security.reach import reaches_kernel

_PROCESS_KEYRING = -2
_GET_KEYRING_ID = 0
_MAP_CREATE, _MAP_ARRAY = 0, 2
_PERF_SOFTWARE, _EXCLUDE_KERNEL_AND_HYPERVISOR = 1, 0b110_0000
_USER_MODE_ONLY = 1
_FAN_CLASS_CONTENT = 4
_SYNC_ALL_QUOTAS = 0x80_0001 << 8
_ADJ_TICK = 0x4000
_READ_IMPLIES_EXEC = 0x40_0000
_OFF = "EPERM ENOSYS"


@attempt(_OFF)
def add_key() -> str:
    return f"key {call('add_key', b'user', b'immure-attempt', b'x', 1, _PROCESS_KEYRING)}"


@attempt(_OFF)
def keyring_id() -> str:
    return f"keyring {call('keyctl', _GET_KEYRING_ID, _PROCESS_KEYRING, 1)}"


@attempt(_OFF)
def request_key() -> str:
    """A key that nobody has gives ENOKEY, from the search."""
    with granted_by("ENOKEY"):
        call("request_key", b"user", b"immure-attempt", None, _PROCESS_KEYRING)
    return "searched"


@attempt(_OFF, needs_root=True)
def bpf_map() -> str:
    attributes = ctypes.create_string_buffer(struct.pack("IIIII", _MAP_ARRAY, 4, 4, 1, 0), 128)
    return f"descriptor {call('bpf', _MAP_CREATE, attributes, 128)}"


@attempt(_OFF)
def performance_counter() -> str:
    attributes = ctypes.create_string_buffer(112)
    struct.pack_into("IIQQQQQ", attributes, 0, _PERF_SOFTWARE, 112, 0, 0, 0, 0, _EXCLUDE_KERNEL_AND_HYPERVISOR)
    return f"descriptor {call('perf_event_open', attributes, 0, -1, -1, 0)}"


@attempt(_OFF)
def io_uring() -> str:
    """Operations of a ring pass no filter."""
    return f"descriptor {call('io_uring_setup', 1, ctypes.create_string_buffer(120))}"


@attempt(_OFF)
def fault_handler() -> str:
    """Hold the kernel at a page fault for as long as one likes."""
    return f"descriptor {call('userfaultfd', _USER_MODE_ONLY)}"


@attempt(_OFF, needs_root=True)
def watch_all_files() -> str:
    return f"descriptor {call('fanotify_init', _FAN_CLASS_CONTENT, 0)}"


@attempt(_OFF, needs_root=True, cases={"on": {"name": "swapon"}, "off": {"name": "swapoff"}})
def swap(name: str) -> str:
    """No such file is looked for before the right has been checked."""
    with granted_by("ENOENT"):
        call(name, b"/nonexistent", 0)
    return "allowed"


@attempt(_OFF, needs_root=True)
def account() -> str:
    with granted_by("ENOENT"):
        call("acct", b"/nonexistent")
    return "allowed"


@attempt(_OFF)
def sync_quotas() -> str:
    call("quotactl", _SYNC_ALL_QUOTAS, None, 0, None)
    return "synced"


@attempt(_OFF, needs_root=True)
def set_time_of_day() -> str:
    """Neither a time nor a zone: the right is checked, nothing is set."""
    call("settimeofday", None, None)
    return "allowed"


@attempt(_OFF, needs_root=True, cases={"adjtimex": {"before": []}, "clock_adjtime": {"before": [0]}})
def adjust_clock(before: list[int]) -> str:
    """A tick of no length is EINVAL, after the right has been checked."""
    timex = ctypes.create_string_buffer(_ADJ_TICK.to_bytes(4, "little"), 208)
    with granted_by("EINVAL"):
        call("clock_adjtime" if before else "adjtimex", *before, timex)
    return "allowed"


@attempt(_OFF, needs_root=True)
def reboot() -> str:
    """Wrong magic numbers are EINVAL, after the right has been checked."""
    with granted_by("EINVAL"):
        call("reboot", 0, 0, 0, 0)
    return "allowed"


@attempt(_OFF, needs_root=True, cases={"host": {"name": "sethostname"}, "domain": {"name": "setdomainname"}})
def rename_host(name: str) -> str:
    """A name that is too long is EINVAL, after the right has been checked."""
    with granted_by("EINVAL"):
        call(name, b"immure", 1 << 20)
    return "allowed"


@attempt(_OFF)
def old_personality() -> str:
    """Make all memory executable."""
    call("personality", _READ_IMPLIES_EXEC)
    return "set"


_NEVER_CARRIED_OUT = (
    "init_module",
    "finit_module",
    "delete_module",
    "kexec_load",
    "kexec_file_load",
    "iopl",
    "ioperm",
    "clock_settime",
    "vhangup",
    "reboot",
    "swapoff",
    "open_by_handle_at",
    "quotactl_fd",
)


@attempt(_OFF, cases={name: {"name": name} for name in _NEVER_CARRIED_OUT})
def reach(name: str) -> str:
    """Get the call past every filter; it harms the host, or this kernel may lack it."""
    reaches_kernel(name, 0, 0, 0, 0)
    return "would be carried out"


@attempt("ENOSYS EPERM", cases={name: {"name": name} for name in ("getpid", "ptrace", "chmod", "mount")})
def enter_as_x32(name: str) -> str:
    """The calls of the x32 ABI are other numbers; a list of allowed or denied ones doesn't name them."""
    assert name in NUMBERS
    reaches_kernel(name, 0, 0, 0, 0, bits=X32)
    return "would be carried out"


@attempt("ENOSYS EPERM", scenes="programs")
def enter_as_i386(programs: str) -> str:
    """The 32-bit entry has a table of its own, with socketcall and ipc in it."""
    entry = subprocess.run([f"{programs}/i386_entry", "getpid"], capture_output=True, check=True)
    if (result := int(entry.stdout)) < 0:
        raise_errno(-result)
    return f"process {result}"
