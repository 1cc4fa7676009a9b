"""Snapshots: a box with a kernel of its own, as it stood, from which others go on."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from immure.engine.cache import is_current
from immure.engine.held_folders import let_go, make_held
from immure.engine.machine_files import read_machine, write_machine
from immure.errors import BoxLost, RuntimeUnavailable, SetupFailed, SpecError
from immure.plan.launch import FORM, Launch
from immure.plan.restoring import copied_launch, restoring_launch
from immure.runtimes.base import Box
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.guest.carried import CarriedBox
from immure.runtimes.guest.machine_copy import MachineCopy
from immure.runtimes.gvisor.images import IMAGE

_MANIFEST = "snapshot.msgpack"
_MOST_FORKS = 1000
#: Lines of /proc/cpuinfo.
_PROCESSOR = ("vendor_id", "cpu family", "model", "stepping", "flags")
#: Of folders of snapshots, and of those that are not saved whole yet.
_PREFIX, _SAVING = "immure-snapshot-", ".immure-saving-"


class _Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept beside an image. `machine` is the kind of this host, `commands` are those under way: stream, and as
    it was asked for. `checksum` is that of a virtual machine's files, once they are written.
    """

    form: int
    name: str
    launch: bytes
    machine: str
    last_stream: int
    commands: dict[int, bytes]
    checksum: str | None = None


class Origin:
    """What boxes go on from, for as long as it is not closed."""

    def __init__(self, name: str, launch: Launch, standing: Adopts) -> None:
        self._launch, self._name = launch, name
        #: What was under way.
        self.standing = standing

    @property
    def name(self) -> str:
        """That of the box, which is the host name in it."""
        return self._name

    @property
    def base(self) -> Launch:
        """What the box was made by that was copied, or the first of those that it came from."""
        return self._launch

    def launch(self) -> Launch:
        """What a box that goes on from here is made by. Raises BoxLost and RuntimeUnavailable."""
        return self._launch

    def close(self) -> None:
        """Lets go of it. Boxes that were made of it go on."""
        self.standing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Snapshot(Origin):
    """A box as it stood, in a folder of this host. `Sandbox.restore` makes boxes of it, as many as there are to be.

    A context manager. One that was not saved is removed when it is closed, or forgotten. What stands in a box's memory
    stands in here: keep it as you would keep that. That of a virtual machine stands in this host's memory until it is
    saved; a box that goes on from it takes of it only what it changes.
    """

    path: Path

    def __init__(
        self, folder: Path, manifest: _Manifest, *, held: int | None = None, machine: MachineCopy | None = None
    ) -> None:
        """`held` is what holds the folder of one that is not saved yet, and its own then."""
        super().__init__(manifest.name, _launch_of(manifest), Adopts(manifest.last_stream, manifest.commands, machine))
        self.path = folder
        self._manifest = manifest
        self._machine = machine
        self._remove = None if held is None else weakref.finalize(self, let_go, folder, held, os.getpid())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """One that was saved. Raises SpecError where there is none, RuntimeUnavailable where it is of another version,
        machine or runsc, or damaged, and SetupFailed without room for a machine's disk. What it says is done as a
        spec's is: load none that others could write.
        """
        folder = Path(path).absolute()
        try:
            manifest = msgspec.msgpack.decode((folder / _MANIFEST).read_bytes(), type=_Manifest)
            _check(manifest.form == FORM, "a snapshot of this version of immure", "one of another version")
            machine = None
            if manifest.checksum is not None:
                launch = _launch_of(manifest)
                machine = read_machine(folder, manifest.checksum, _memory_bytes(launch), launch)
        except (OSError, ValueError, msgspec.DecodeError) as error:
            raise SpecError(
                f"{folder} is no snapshot", path="path", need="a folder that `save` has written", have=str(error)
            ) from error
        return cls(folder, manifest, machine=machine)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keeps it in a folder that must not be there. Raises SpecError, and SetupFailed where there is no room."""
        target = Path(path).absolute()
        if os.path.lexists(target):
            raise SpecError("the target is there already", path=str(target), need="a name that is free")
        self._check_open()
        try:
            folder, held = make_held(target.parent, _SAVING)
            try:
                self._write(folder)
                folder.rename(target)
            finally:
                let_go(folder, held, os.getpid())
        except OSError as error:
            raise SetupFailed(
                f"the snapshot can't be saved in {target}",
                step="save",
                errno=error.errno or 0,
                have=os.strerror(error.errno or 0),
                hint="make room there, or choose another folder",
            ) from error
        if self._remove is not None:
            self._remove()
            self._remove = None
        self.path = target

    def _write(self, folder: Path) -> None:
        """All of it, under a name that it has until it is whole."""
        manifest = self._manifest
        if self._machine is not None:
            manifest = msgspec.structs.replace(manifest, checksum=write_machine(folder, self._machine))
        else:
            # What is to be removed here afterwards need not be copied.
            take = shutil.copy2 if self._remove is None else _linked
            shutil.copytree(self.path / IMAGE, folder / IMAGE, copy_function=take)
        (folder / _MANIFEST).write_bytes(msgspec.msgpack.encode(manifest))

    def close(self) -> None:
        """Removes it, unless it was saved; a machine's is to be loaded anew then. Boxes made of it go on."""
        if self._remove is not None:
            self._remove()
        super().close()

    def _check_open(self) -> None:
        there = self._machine.state >= 0 if self._machine is not None else (self.path / IMAGE).is_dir()
        if not there:
            raise BoxLost("the snapshot is gone", need="one that is not closed", hint="make another one")

    def launch(self) -> Launch:
        """What a box that goes on from here is made by. Raises BoxLost and RuntimeUnavailable."""
        self._check_open()
        here = _kind_of_host(self._launch)
        _check(self._manifest.machine == here, f"a host of the kind {self._manifest.machine}", here)
        image = str(self.path / IMAGE)
        launch = copied_launch(self._launch) if self._machine else restoring_launch(self._launch, image)
        _check(is_current(launch), "the programs, mounts and image that it was made with", "others, or none")
        return launch

    def __repr__(self) -> str:
        return f"<Snapshot of {self.name} in {self.path}>"


def take_snapshot(box: Box, launch: Launch, name: str) -> Snapshot:
    """A snapshot of a box that is in use, which goes on. Raises RuntimeUnavailable where its kernel is this host's."""
    if not isinstance(box, CarriedBox):
        raise RuntimeUnavailable(
            "this box can't be copied",
            need="a kernel of its own",
            have=f"the runtime {launch.runtime}",
            hint='level="L3"',
        )
    _check_changes(launch)
    folder, held = make_held(Path(tempfile.gettempdir()), _PREFIX)
    try:
        found = box.checkpoint(folder)
        manifest = _Manifest(
            form=FORM,
            name=name,
            launch=msgspec.msgpack.encode(launch.to_tuple()),
            machine=_kind_of_host(launch),
            last_stream=found.last_stream,
            commands=found.commands,
        )
        (folder / _MANIFEST).write_bytes(msgspec.msgpack.encode(manifest))
        return Snapshot(folder, manifest, held=held, machine=found.machine)
    except BaseException:
        let_go(folder, held, os.getpid())
        raise


def _check_changes(launch: Launch) -> None:
    """Each copy would bring its own, and the last to be closed would win."""
    if launch.changes:
        raise RuntimeUnavailable(
            "a machine that writes to folders of this host can't be copied",
            need="mounts that are read alone",
            have=f"{launch.changes[0][0]}, which is written to",
            hint="mount it ro, and take files out by box.files",
        )


def _launch_of(manifest: _Manifest) -> Launch:
    return Launch.from_tuple(_tuples(msgspec.msgpack.decode(manifest.launch, strict=False)))


def _memory_bytes(launch: Launch) -> int:
    """What its machine has."""
    return int(str(launch.expected["memory_mib"])) << 20


def _kind_of_host(launch: Launch) -> str:
    """What a copy may rely on: a machine on the processor's virtualisation has seen what that can do."""
    kind = os.uname().machine
    if not launch.expected.get("hardware"):
        return kind
    known = sorted({line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(_PROCESSOR)})
    return f"{kind}/{blake2b(' '.join(known).encode(), digest_size=8).hexdigest()}"


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without.
        shutil.copy2(source, target)


def begin_fork(box: Box, launch: Launch, name: str) -> Origin:
    """What forks go on from. A machine's copy may be under way yet: who is to go on from it can begin meanwhile."""
    _check_changes(launch)
    soon = box.begin_checkpoint() if isinstance(box, CarriedBox) else None
    return Origin(name, copied_launch(launch), soon) if soon is not None else take_snapshot(box, launch, name)


def check_forks(count: int) -> None:
    """Raises SpecError for a number of boxes that can't be meant."""
    if not 1 <= count <= _MOST_FORKS:
        raise SpecError("no such number of forks", path="count", need=f"1 to {_MOST_FORKS}", have=str(count))


def _check(right: bool, need: str, have: str) -> None:
    if not right:
        raise RuntimeUnavailable(
            "the snapshot can't be used here", need=need, have=have, hint="make another one from a new box"
        )


def _tuples(value: Any) -> Any:
    """Lists as the tuples that they were."""
    if isinstance(value, list):
        return tuple(_tuples(one) for one in value)  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {key: _tuples(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
    return value
