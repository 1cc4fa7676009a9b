"""The OCI bundle of a box in a Sentry: `config.json`, for a root that is beside it. Pure. runtime-spec, config.md."""

from __future__ import annotations

from typing import Any

import msgspec

from immure.plan.limits import DEFAULT_DISK_MIB
from immure.plan.operations import NODEV, NOEXEC, NOSUID, RDONLY, MountNew, Private, RootOp, Share, UserMount
from immure.policy.capabilities import NAMES
from immure.spec.models import SandboxSpec

#: In the outer box: where the bundle, the workload's root and the user's mounts are.
BUNDLE, ROOTFS, MOUNTS = "/bundle", "/rootfs", "/mounts"
#: In the workload's root.
INIT = "/.immure/init"
#: What our init in the Sentry needs: to enter the commands' working directories and become their users, and to end what
#: they leave.
_INIT_CAPABILITIES = ("CHOWN", "DAC_READ_SEARCH", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN")
_SHM_MIB = 64
_WORDS = ((NOSUID, "nosuid"), (NODEV, "nodev"), (NOEXEC, "noexec"))


def bundle_config(
    spec: SandboxSpec, hostname: str, keep: int, operations: tuple[RootOp, ...], *, single: bool
) -> bytes:
    """The text of `config.json`. `operations` are those of a process box's root, and `keep` the commands' capabilities.

    With a `single` id our init makes a user namespace within, and gives itself another there.

    Annotations can't come from a spec: those of `dev.gvisor.` would change what a Sentry allows.
    """
    capabilities = _capability_names(keep, single)
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": [INIT, "guest", "0", "1"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": ROOTFS, "readonly": True},
        "hostname": hostname,
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            # No box has one; where none is asked for runsc mounts the Sentry's.
            _mount("/sys", "tmpfs", "tmpfs", ["ro", "size=4k", "mode=0555", *_words(NOSUID | NODEV | NOEXEC)]),
            *_mounts(spec, operations),
        ],
        # The outer box has a network namespace of its own.
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }
    return msgspec.json.encode(config)


def _capability_names(keep: int, single: bool) -> list[str]:
    kept = {name for bit, name in enumerate(NAMES) if keep >> bit & 1}
    # Whoever maps the id 0 in a user namespace needs it. user_namespaces(7).
    maps = ("SETFCAP",) if single else ()
    return [f"CAP_{name}" for name in sorted(kept.union(_INIT_CAPABILITIES, maps))]


def private_sizes(spec: SandboxSpec) -> tuple[int, int]:
    """MiB of `/dev/shm`, and of `/tmp` and each tmpfs without a size: together at most `disk_mib`, one by one."""
    size = spec.limits.disk_mib or DEFAULT_DISK_MIB
    written = sum(mount.size_mib or 0 for mount in spec.files.mounts)
    shares = 1 + sum(mount.tmpfs is not None and mount.size_mib is None for mount in spec.files.mounts)
    left = size - written
    shm = max(1, min(_SHM_MIB, left // 4))
    return shm, max(1, (left - shm) // shares)


def _mounts(spec: SandboxSpec, operations: tuple[RootOp, ...]) -> list[dict[str, Any]]:
    """In the order in which they stand in each other. The places for those of the user's are made by runsc."""
    shm_mib, share_mib = private_sizes(spec)
    mounts: list[dict[str, Any]] = []
    number = 0
    for op in operations:
        match op:
            case Private():
                sizes = {"/dev/shm": shm_mib}
                mounts += [_tmpfs(one.path, sizes.get(one.path, share_mib), op.flags) for one in op.folders]
            case Share(path):
                mounts.append(_tmpfs(path, share_mib, NOSUID | NODEV))
            case MountNew(kind="tmpfs"):
                mounts.append(_tmpfs(op.path, _mib_of(op.options), op.flags))
            case UserMount():
                access = "ro" if op.attributes & RDONLY else "rw"
                options = ["rbind", access, *_words(op.attributes)]
                mounts.append(_mount(op.path, "bind", f"{MOUNTS}/{number}", options))
                number += 1
            case _:
                # The Sentry has a /proc and devices of its own, and runsc makes the mount points.
                pass
    return mounts


def _tmpfs(path: str, size_mib: int, flags: int) -> dict[str, Any]:
    return _mount(path, "tmpfs", "tmpfs", [f"size={size_mib}m", "mode=1777", *_words(flags)])


def _mount(path: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": path, "type": kind, "source": source, "options": options}


def _words(flags: int) -> list[str]:
    return [word for bit, word in _WORDS if flags & bit]


def _mib_of(options: str) -> int:
    """From `size=64m,…`, as `box_root` writes it."""
    return int(options.split(",", 1)[0].removeprefix("size=").removesuffix("m"))
