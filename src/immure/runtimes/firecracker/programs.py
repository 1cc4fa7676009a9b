"""Where Firecracker and its jailer are on this host."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import NamedTuple

from immure.errors import RuntimeUnavailable
from immure.host.ids import is_root

KVM = "/dev/kvm"
#: Settings that name one, before PATH.
FIRECRACKER, JAILER = "IMMURE_FIRECRACKER", "IMMURE_JAILER"


class Programs(NamedTuple):
    """Two programs that belong together: of one version."""

    firecracker: str
    jailer: str


def find_programs(environment: Mapping[str, str]) -> Programs:
    """Raises RuntimeUnavailable where one is missing, or where this host or user can't run them."""
    if not is_root():
        raise RuntimeUnavailable(
            "Firecracker's jailer can't be run by this user",
            need="root of the host, which the jailer is before it becomes the machine's own user",
            have=f"user {os.geteuid()}",
            hint="run `immure serve` as root; without root, boxes of the runtime qemu are virtual machines too",
        )
    check_kvm()
    return Programs(_found("firecracker", FIRECRACKER, environment), _found("jailer", JAILER, environment))


def check_kvm() -> None:
    """Raises RuntimeUnavailable where there is no KVM."""
    try:
        os.close(os.open(KVM, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise RuntimeUnavailable(
            "Firecracker needs KVM",
            need=f"{KVM} that can be opened",
            have=error.strerror,
            hint="load the module kvm_intel or kvm_amd; in a container, pass the device in; `immure doctor` says more",
        ) from error


def _found(name: str, setting: str, environment: Mapping[str, str]) -> str:
    named = environment.get(setting)
    path = named or shutil.which(name, path=environment.get("PATH"))
    if path is None or not os.access(path, os.X_OK):
        raise RuntimeUnavailable(
            f"{name} was not found",
            need="Firecracker and its jailer, of version 1.12 or later",
            have=f"{setting}={named}, which can't be run" if named else "none in PATH",
            hint=f"install a release of Firecracker, or name the program in {setting}",
        )
    return path
