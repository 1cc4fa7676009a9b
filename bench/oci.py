"""A bundle for the runtimes of OCI: a container as near to our box as its form can say.

One for gVisor, which is asked for by `sentry`, has no ids of its own, since a Sentry has, and no filter, which it takes
from nowhere but a command within.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.peers import HOST_LINKS

SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
NAMESPACES = ("user", "pid", "network", "ipc", "uts", "mount", "cgroup")
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
#: The first of the host's ids for a container, which nobody has.
HOST_ID = 1_879_048_192
IDS = [{"containerID": 0, "hostID": HOST_ID, "size": 65_536}]
TMPFS = (("/dev", "mode=755"), ("/dev/shm", "mode=1777"), ("/tmp", "mode=1777"))


@contextmanager
def empty() -> Iterator[int]:
    """Standard descriptors for a runtime. crun gives them to the container's user, the host's /dev/null as well."""
    fd = os.memfd_create("stdio")
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def bundle(command: Sequence[str], *, sentry: bool = False) -> Iterator[str]:
    """The folder of a container that runs a command, with the host's /usr and our default profile."""
    with tempfile.TemporaryDirectory(prefix="immure-bench-") as folder:
        # Its root is not the host's.
        Path(folder).chmod(0o755)
        root = Path(folder, "rootfs")
        for name in ("usr", "proc", "dev", "tmp", "etc"):
            (root / name).mkdir(parents=True)
        # runc takes a tmpfs's mode from the folder beneath.
        (root / "tmp").chmod(0o1777)
        for name in HOST_LINKS:
            if Path("/", name).is_symlink():
                (root / name).symlink_to(Path("/", name).readlink())
        Path(folder, "config.json").write_text(json.dumps(_config(command, sentry=sentry)))
        yield folder


@contextmanager
def box(runtime: Sequence[str], command: Sequence[str], *, sentry: bool = False) -> Iterator[Sequence[str]]:
    """The argv that makes a container for one command."""
    with bundle(command, sentry=sentry) as folder:
        yield [*runtime, "run", "--bundle", folder, _name()]


@contextmanager
def container(runtime: Sequence[str], command: Sequence[str], *, sentry: bool = False) -> Iterator[tuple[str, int]]:
    """A container that stays: its name, and its first process on the host."""
    name = _name()
    with bundle(command, sentry=sentry) as folder:
        pid = Path(folder, "pid")
        _run([*runtime, "run", "--detach", "--pid-file", str(pid), "--bundle", folder, name])
        try:
            yield name, int(pid.read_text())
        finally:
            _run([*runtime, "delete", "--force", name])


@contextmanager
def idle(runtime: Sequence[str], command: Sequence[str]) -> Iterator[int]:
    with container(runtime, command) as (_, pid):
        yield pid


def _run(argv: Sequence[str]) -> None:
    with empty() as fd:
        subprocess.run(argv, check=True, stdin=fd, stdout=fd, stderr=fd)


def _name() -> str:
    return f"immure-bench-{secrets.token_hex(4)}"


def _config(command: Sequence[str], *, sentry: bool) -> dict[str, object]:
    process = {
        "user": {"uid": 1000, "gid": 1000},
        "args": [*command],
        "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"],
        "cwd": "/tmp",
        "noNewPrivileges": True,
        "capabilities": {name: [] for name in SETS},
    }
    linux: dict[str, object] = {
        "namespaces": [{"type": name} for name in NAMESPACES if not (sentry and name in ("user", "cgroup"))],
        "maskedPaths": MASKED,
        "readonlyPaths": READ_ONLY,
    }
    if not sentry:
        linux.update(uidMappings=IDS, gidMappings=IDS, seccomp=_filter())
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "box",
        "mounts": _mounts(),
        "linux": linux,
    }


def _mounts() -> list[dict[str, object]]:
    tmpfs = [
        {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", mode]}
        for target, mode in TMPFS
    ]
    usr = {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro", "nosuid", "nodev"]}
    return [{"destination": "/proc", "type": "proc", "source": "proc"}, *tmpfs, usr]


def _filter() -> dict[str, object]:
    """Our default profile as the runtime specification has it: without conditions, which are Docker's.

    Those of ours are of kernels that are old, and of s390.
    """
    from immure.policy.seccomp import preset_text

    profile = json.loads(preset_text("default"))
    rules = [one for one in profile["syscalls"] if "arches" not in one.get("includes", {})]
    kept = ("names", "action", "errnoRet", "args")
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": profile["architectures"],
        "syscalls": [{key: one[key] for key in kept if key in one} for one in rules],
    }
