"""Reads this machine. What the kernel allows is tried, never guessed from a version."""

from __future__ import annotations

import os
from pathlib import Path

from immure.host.cgroups import find_parents
from immure.host.facts import HostFacts, HostImage
from immure.host.ids import find_ids, host_root_id, is_root, switches_user
from immure.host.trials import landlock_abi, try_host

_ROOT_NAMES = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC_COPIES = (
    "ld.so.cache",
    "services",
    "protocols",
    "mime.types",
    "ssl/certs/ca-certificates.crt",
    "ssl/openssl.cnf",
    "pki/tls/certs/ca-bundle.crt",
)
# As the OCI runtimes do; a folder or file that this kernel lacks is no work for a box.
_HIDDEN = (
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
)
_FROZEN = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_ARCH = {"x86_64": "x86_64", "aarch64": "aarch64"}


def probe() -> HostFacts:
    """The facts of this host for this user, tried out. Takes a few milliseconds."""
    proc = Path("/proc")
    hidden = [proc / name for name in _HIDDEN if (proc / name).exists()]
    name = os.uname()
    major, minor = (int(part) for part in name.release.split("-")[0].split(".")[:2])
    ids = find_ids()
    tried = try_host()
    cgroups = find_parents()
    return HostFacts(
        kernel=(major, minor),
        arch=_ARCH.get(name.machine, name.machine),
        boot_id=(proc / "sys/kernel/random/boot_id").read_text().strip(),
        root=is_root(),
        switches_user=switches_user(),
        uid=os.geteuid(),
        gid=os.getegid(),
        groups=tuple(os.getgroups()),
        landlock_abi=landlock_abi(),
        last_capability=int((proc / "sys/kernel/cap_last_cap").read_text()),
        image=_image(),
        proc_hidden_files=tuple(path.name for path in hidden if not path.is_dir()),
        proc_hidden_folders=tuple(path.name for path in hidden if path.is_dir()),
        proc_frozen=tuple(entry for entry in _FROZEN if (proc / entry).exists()),
        ids=ids,
        cgroups=cgroups.parents,
        no_cgroups=cgroups.why_none,
        nproc_hard=_nproc_hard(),
        host_root_id=host_root_id(),
        seccomp=tried.seccomp,
        user_namespaces=tried.user_namespaces,
        new_proc=tried.new_proc,
        ptrace=tried.ptrace,
    )


def _image() -> HostImage:
    root = Path("/")
    links = tuple((entry, str((root / entry).readlink())) for entry in _ROOT_NAMES if (root / entry).is_symlink())
    folders = ["/usr"]
    folders += [f"/{entry}" for entry in _ROOT_NAMES if (root / entry).is_dir() and not (root / entry).is_symlink()]
    if Path("/etc/alternatives").is_dir():
        folders.append("/etc/alternatives")
    copies = tuple(f"/etc/{entry}" for entry in _ETC_COPIES if Path("/etc", entry).is_file())
    localtime = Path("/etc/localtime")
    return HostImage(
        links=links,
        folders=tuple(folders),
        copies=copies,
        localtime=str(localtime.readlink()) if localtime.is_symlink() else None,
    )


def _nproc_hard() -> int | None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    return None if hard == resource.RLIM_INFINITY else hard
