"""Machines that have booted, whose memory others of their kind go on from: each is booted once.

They are kept beside the cache, in `$XDG_CACHE_HOME/immure/machines`, by what they were made of and by this host as it
is: one that comes of another boot of it is not used.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec

from immure.engine import cache
from immure.engine.spawners import spawner_for
from immure.errors import RuntimeUnavailable
from immure.host.facts import HostFacts, MachineFacts
from immure.host.identity import identity_of
from immure.plan.compile import compile_plan, runtime_of
from immure.plan.firecracker import configured
from immure.plan.launch import Launch
from immure.plan.launching import make_launch
from immure.plan.model import Inputs
from immure.plan.qemu import machine_words
from immure.runtimes.guest.machine_copy import MEMORY_FILE, STATE_FILE
from immure.spec.models import SandboxSpec

_FORM = 1
#: The oldest go first: each has what its kernel has written of its memory.
_MOST = 8
#: Nobody boots for so long.
_ABANDONED_S = 3600.0


#: Paths of a memory and a state, and what they are.
Booted = tuple[tuple[str, tuple[int, ...]], ...]


def find_booted(spec: SandboxSpec, facts: HostFacts, machine: MachineFacts) -> Booted:
    """One as the spec's box is to be; nothing where there is none. Raises RuntimeUnavailable."""
    place = _place(spec, facts, machine)
    return _files_of(place) if _is_whole(place) else ()


def make_booted(spec: SandboxSpec, facts: HostFacts, inputs: Inputs, machine: MachineFacts) -> Booted:
    """The same, made where there is none, which takes as long as a boot. Raises RuntimeUnavailable and BoxError."""
    place = _place(spec, facts, machine)
    with _alone(place.with_name(f".{place.name}.lock")):
        if not _is_whole(place):
            _make(place, spec, facts, msgspec.structs.replace(inputs, machine=machine))
            _sweep(place.parent, keep=place)
    return _files_of(place)


def forget_booted(launch: Launch) -> None:
    """Nobody is to go on from the one that a launch names, if it names one: another is made then."""
    machines = _folder()
    for path, _ in launch.programs:
        if Path(path).parent.parent == machines:
            shutil.rmtree(Path(path).parent, ignore_errors=True)


def _files_of(place: Path) -> Booted:
    # The newest are kept.
    os.utime(place)
    made = [str(place / name) for name in (MEMORY_FILE, STATE_FILE)]
    return tuple((path, identity_of(path) or ()) for path in made)


def _place(spec: SandboxSpec, facts: HostFacts, machine: MachineFacts) -> Path:
    host = (facts.boot_id, facts.kernel, _processor(), machine.kvm.kind)
    # Images and first roots are named by what they hold.
    files = [path for path, _ in machine.files]
    told = configured(spec, machine) if runtime_of(spec) == "firecracker" else machine_words(spec, machine)
    parts = (_FORM, host, machine.vmm, machine.kernel, files, told)
    return _folder() / sha256(msgspec.msgpack.encode(parts)).hexdigest()[:32]


def _processor() -> list[str]:
    """Of which kind this host's are: those of another boot may be others, where the host is a machine itself."""
    told = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0].splitlines()
    wanted = ("vendor_id", "cpu family", "model", "stepping", "microcode", "flags")
    return [line for line in told if line.split("\t")[0].strip() in wanted]


def _folder() -> Path:
    above = cache.folder()
    if above is None:
        raise RuntimeUnavailable(
            "machines that have booted have no place",
            need="a cache folder of this user's own, which nobody else may enter",
            have="none that can be made or trusted",
            hint="set XDG_CACHE_HOME to a folder that you own",
        )
    folder = Path(above) / "machines"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def _alone(lock: Path) -> Generator[None]:
    """One boots, and who wants the same meanwhile waits for it."""
    held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _is_whole(place: Path) -> bool:
    return all((place / name).is_file() for name in (MEMORY_FILE, STATE_FILE))


def _make(place: Path, spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> None:
    launch = make_launch(compile_plan(spec, facts, inputs), spec, facts, inputs)
    part = place.with_name(f".{secrets.token_hex(8)}")
    part.mkdir(mode=0o700)
    try:
        _boot(launch, part)
        for name in (MEMORY_FILE, STATE_FILE):
            # A box's user is somebody else; the folder above is private.
            (part / name).chmod(0o444)
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _boot(launch: Launch, above: Path) -> None:
    if launch.runtime == "firecracker":
        from immure.runtimes.firecracker.booted import boot_for_others
    else:
        from immure.runtimes.qemu.booted import boot_for_others
    boot_for_others(spawner_for(launch), launch, above)


def _sweep(above: Path, *, keep: Path) -> None:
    """Removes the oldest, and what killed callers have left. Who has one open keeps it."""
    found = sorted(_by_age(above), reverse=True)
    for _, one in [(age, one) for age, one in found if one != keep and not one.name.startswith(".")][_MOST - 1 :]:
        shutil.rmtree(one, ignore_errors=True)
    for changed, one in found:
        if one.name.startswith(".") and one.is_dir() and changed < time.time() - _ABANDONED_S:
            shutil.rmtree(one, ignore_errors=True)


def _by_age(above: Path) -> Iterator[tuple[float, Path]]:
    for one in above.iterdir():
        try:
            yield one.lstat().st_mtime, one
        except FileNotFoundError:
            continue
