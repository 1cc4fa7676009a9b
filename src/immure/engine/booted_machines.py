"""Machines that have booted, whose memory others of their kind go on from: each is booted once.

They are kept with the images that they are made of, by those and by this host as it is: one that comes of another boot
of it is not used.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec

from immure.engine.image_store import forget, found, kept
from immure.engine.notices import tell_when_long
from immure.engine.spawners import spawner_for
from immure.host.facts import HostFacts, MachineFacts
from immure.host.identity import identity_of
from immure.plan.compile import compile_plan, runtime_of
from immure.plan.firecracker import configured
from immure.plan.launch import Launch
from immure.plan.launching import make_launch
from immure.plan.machine_space import disk_bytes
from immure.plan.model import Inputs
from immure.plan.qemu import machine_words
from immure.runtimes.guest.machine_copy import MEMORY_FILE, STATE_FILE
from immure.spec.models import SandboxSpec

_FORM = 3
#: What the store calls them.
_KIND = ".machine"


#: Paths of a memory and a state, and what they are.
Booted = tuple[tuple[str, tuple[int, ...]], ...]


def find_booted(spec: SandboxSpec, facts: HostFacts, machine: MachineFacts) -> Booted:
    """One as the spec's box is to be; nothing where there is none. Raises RuntimeUnavailable."""
    place = found(_name(spec, facts, machine))
    return _files_of(place) if place is not None else ()


def make_booted(spec: SandboxSpec, facts: HostFacts, inputs: Inputs, machine: MachineFacts) -> Booted:
    """The same, made where there is none, which takes as long as a boot. Raises RuntimeUnavailable and BoxError."""

    def make(place: Path) -> None:
        wanted = msgspec.structs.replace(inputs, machine=machine)
        launch = make_launch(compile_plan(spec, facts, wanted), spec, facts, wanted)
        place.mkdir(mode=0o700)
        with tell_when_long("booting a machine, once, for all of its kind to go on from"):
            _boot(launch, place)
        for name in (MEMORY_FILE, STATE_FILE):
            # A box's user is somebody else; the folder above is private.
            (place / name).chmod(0o444)

    return _files_of(kept(_name(spec, facts, machine), make))


def forget_booted(launch: Launch) -> None:
    """Nobody is to go on from the one that a launch names, if it names one: another is made then."""
    for path, _ in launch.programs:
        if Path(path).parent.suffix == _KIND:
            forget(Path(path).parent)


def _files_of(place: Path) -> Booted:
    made = [str(place / name) for name in (MEMORY_FILE, STATE_FILE)]
    return tuple((path, identity_of(path) or ()) for path in made)


def _name(spec: SandboxSpec, facts: HostFacts, machine: MachineFacts) -> str:
    host = (facts.boot_id, facts.kernel, _processor(), machine.kvm.kind)
    # Images and first roots are named by what they hold.
    files = [path for path, _ in machine.files]
    told = configured(spec, machine) if runtime_of(spec) == "firecracker" else machine_words(spec, machine)
    # A kernel that has booted knows how large its disks are.
    parts = (_FORM, host, machine.vmm, machine.kernel, files, told, disk_bytes(spec))
    return sha256(msgspec.msgpack.encode(parts)).hexdigest()[:32] + _KIND


def _processor() -> list[str]:
    """Of which kind this host's are: those of another boot may be others, where the host is a machine itself."""
    told = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0].splitlines()
    wanted = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")
    return [line for line in told if line.split("\t")[0].strip() in wanted]


def _boot(launch: Launch, above: Path) -> None:
    if launch.runtime == "firecracker":
        from immure.runtimes.firecracker.booted import boot_for_others
    else:
        from immure.runtimes.qemu.booted import boot_for_others
    boot_for_others(spawner_for(launch), launch, above)
