"""Writing to the kernel's switches, and reading what /proc and the kernel tell about the host."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

from security.attempt import Denied, attempt
from security.calls import call

_SYSLOG_READ_ALL = 3

_SWITCHES = (
    "kernel/core_pattern",
    "kernel/hostname",
    "kernel/randomize_va_space",
    "kernel/panic",
    "fs/suid_dumpable",
    "fs/protected_hardlinks",
    "vm/overcommit_memory",
    "vm/swappiness",
    "net/ipv4/ip_forward",
    "kernel/ns_last_pid",
    "fs/pipe-max-size",
)


@attempt(
    "EROFS EACCES",
    cases={name.replace("/", "."): {"path": f"/proc/sys/{name}"} for name in _SWITCHES},
    needs_root=True,
)
def write_switch(path: str) -> str:
    """Write back what stands there."""
    value = Path(path).read_bytes()
    Path(path).write_bytes(value)
    return value.decode()


@attempt("EROFS EACCES", needs_root=True)
def write_interrupt_affinity() -> str:
    path = Path("/proc/irq/default_smp_affinity")
    value = path.read_text()
    path.write_text(value)
    return value


@attempt("EROFS EACCES ENOENT EPERM ABSENT", needs_root=True)
def configure_pci() -> str:
    """Open the configuration space of a device for writing."""
    path = next((file for file in Path("/proc/bus/pci").rglob("*.*") if file.is_file()), None)
    if path is None:
        raise Denied("ABSENT", "no device")
    with path.open("r+b"):
        return str(path)


@attempt("ENOENT EROFS EACCES", needs_root=True)
def write_sys() -> str:
    path = Path("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs")
    value = path.read_text()
    path.write_text(value)
    return value


@attempt("ENOENT EROFS EACCES", scenes="control_group", needs_root=True)
def make_control_group(group: str) -> str:
    Path(group, "immure-attempt").mkdir()
    Path(group, "immure-attempt").rmdir()
    return group


@attempt("ENOENT EACCES")
def list_sys() -> str:
    return str(list(Path("/sys/class").iterdir()))


@attempt(
    "EMPTY EACCES ENOENT",
    cases={name: {"path": f"/proc/{name}"} for name in ("keys", "timer_list")},
    needs_root=True,
)
def read_masked(path: str) -> str:
    """Read what the OCI runtime specification would have masked."""
    text = Path(path).read_text()
    if not text:
        raise Denied("EMPTY", path)
    return f"{len(text)} characters"


@attempt("EMPTY ABSENT EACCES ENOENT", needs_root=True)
def kernel_addresses() -> str:
    """Learn where the kernel lies in memory."""
    with Path("/proc/kallsyms").open() as symbols:
        for line in symbols:
            if int(line.split()[0], 16):
                return line.strip()
    raise Denied("EMPTY", "only zeros")


@attempt("EPERM", needs_root=True)
def kernel_log() -> str:
    buffer = ctypes.create_string_buffer(1 << 16)
    return f"{call('syslog', _SYSLOG_READ_ALL, buffer, len(buffer))} bytes"


@attempt("KEPT", scenes="host_name")
def host_name(name: str) -> str:
    """Learn what the host is called."""
    if os.uname().nodename != name:
        raise Denied("KEPT", os.uname().nodename)
    return name


@attempt("ABSENT", scenes="host_process")
def host_process_listed(marker: str) -> str:
    """Find a process of the host by its command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if folder.name != str(os.getpid()) and marker in (folder / "cmdline").read_text():
                return folder.name
    raise Denied("ABSENT", marker)


@attempt("ENOENT", scenes="host_process")
def host_process_folder(pid: int) -> str:
    return str(list(Path(f"/proc/{pid}").iterdir()))


@attempt("EACCES", each_scene="init")
def environment_of_process(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()[:100]


@attempt("EACCES", each_scene="init")
def descriptors_of_process(pid: int) -> str:
    return str(list(Path(f"/proc/{pid}/fd").iterdir()))


@attempt("EACCES", each_scene="init")
def memory_map_of_process(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()[:100]


@attempt("EACCES", each_scene="init")
def memory_of_process(pid: int) -> str:
    """Open the memory for writing: a filter or a Landlock domain isn't asked again after that."""
    with Path(f"/proc/{pid}/mem").open("r+b"):
        return "open for writing"


@attempt("EACCES", each_scene="init")
def stack_and_call_of_process(pid: int) -> str:
    return Path(f"/proc/{pid}/syscall").read_text()


@attempt("EACCES EPERM", each_scene="init")
def out_of_memory_score_of_process(pid: int) -> str:
    """Make the kernel kill another process first."""
    path = Path(f"/proc/{pid}/oom_score_adj")
    path.write_text("1000")
    return path.read_text()
