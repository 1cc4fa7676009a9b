"""What a machine is made with on this host, looked at and made ready."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from immure.engine.kvm import kvm_facts
from immure.engine.machine_images import GET_PACKER, PACKER, first_root, packed_folder, packed_host, packed_mounts
from immure.engine.ticks import ticks_khz
from immure.errors import SpecError
from immure.host.facts import HostImage, ImageFolder, MachineFacts, Missing, ProgramFacts, SourceFacts
from immure.host.identity import identity_of
from immure.host.kernel_modules import modules_of
from immure.host.machines import find_kernel, find_qemu


def missing_for_machines() -> tuple[Missing, ...]:
    """What this host lacks for any machine, whoever runs its kernel."""
    found = [one for one in (find_qemu(), find_kernel()) if isinstance(one, Missing)]
    if shutil.which(PACKER) is None:
        found.append(Missing(need=f"{PACKER}, by which images are packed", have="none on PATH", command=GET_PACKER))
    return tuple(found)


def look_at_machine(
    image: ImageFolder | None, host: HostImage, sources: Sequence[SourceFacts], user: int
) -> MachineFacts | Missing:
    """Programs and files of a box in a machine, whose image and mounts are packed where they have not been.

    An image of None is `image: host`, and mounts belong to `user`. Raises SpecError for what can't be read,
    RuntimeUnavailable without a packer and SetupFailed.
    """
    qemu, kernel = find_qemu(), find_kernel()
    if not isinstance(qemu, ProgramFacts):
        return qemu
    if not isinstance(kernel, ProgramFacts):
        return kernel
    try:
        modules = modules_of(kernel.path)
        first = first_root(modules) if not isinstance(modules, Missing) else None
    except (OSError, ValueError) as error:
        return Missing(need="a kernel for guests, with its modules", have=f"{kernel.path}: {error}")
    if first is None or isinstance(modules, Missing):
        assert isinstance(modules, Missing)
        return modules
    files = [str(first), _image(image, host)]
    if sources:
        files.append(_mounts(sources, user))
    made = [(path, identity_of(path) or ()) for path in files]
    return MachineFacts(
        qemu=qemu,
        kernel=kernel,
        files=tuple(made),
        kvm=kvm_facts(),
        modular=bool(modules),
        ticks_khz=ticks_khz() if modules else None,
    )


def _image(image: ImageFolder | None, host: HostImage) -> str:
    try:
        return str(packed_folder(image.path) if image is not None else packed_host(host))
    except OSError as error:
        name = image.path if image is not None else "host"
        raise _unreadable(f"the image {name}", "$.spec.image", error) from error


def _mounts(sources: Sequence[SourceFacts], user: int) -> str:
    try:
        return str(packed_mounts(sources, user))
    except OSError as error:
        raise _unreadable("a mount", "$.spec.files.mounts", error) from error


def _unreadable(what: str, where: str, error: OSError) -> SpecError:
    return SpecError(
        f"{what} can't be packed for a machine",
        path=where,
        need="a folder that this user can read whole",
        have=f"{error.filename}: {os.strerror(error.errno) if error.errno else error.strerror}",
    )
