"""Snapshots: a box with a kernel of its own, as it stood, from which others go on."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from immure.engine.cache import is_current
from immure.errors import BoxLost, RuntimeUnavailable, SpecError
from immure.plan.launch import FORM, Launch
from immure.plan.restoring import restoring_launch
from immure.runtimes.base import Box
from immure.runtimes.guest.adopted import Adopts
from immure.runtimes.gvisor.box import GVisorBox
from immure.runtimes.gvisor.images import IMAGE

_MANIFEST = "snapshot.msgpack"
_MOST_FORKS = 1000
_PREFIX = "immure-snapshot-"
#: One that is being made is not held yet.
_YOUNG_S = 600.0


class _Manifest(Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept beside an image. `commands` are those under way: stream, and as it was asked for."""

    form: int
    name: str
    launch: bytes
    machine: str
    last_stream: int
    commands: dict[int, bytes]


class Snapshot:
    """A box as it stood, in a folder of this host. `Sandbox.restore` makes boxes of it, as many as there are to be.

    A context manager. One that was not saved is removed when it is closed, or forgotten. What stands in a box's memory
    stands in here: keep it as you would keep that.
    """

    path: Path

    def __init__(self, folder: Path, manifest: _Manifest, *, temporary: bool) -> None:
        self.path = folder
        self._manifest = manifest
        self._launch = Launch.from_tuple(_tuples(msgspec.msgpack.decode(manifest.launch, strict=False)))
        self._remove = weakref.finalize(self, _remove, folder, _hold(folder), os.getpid()) if temporary else None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Snapshot:
        """One that was saved. Raises SpecError where there is none, and RuntimeUnavailable where it is of another
        version, machine or runsc.
        """
        folder = Path(path).absolute()
        try:
            manifest = msgspec.msgpack.decode((folder / _MANIFEST).read_bytes(), type=_Manifest)
        except (OSError, msgspec.DecodeError) as error:
            raise SpecError(
                f"{folder} is no snapshot", path="path", need="a folder that `save` has written", have=str(error)
            ) from error
        _check(manifest.form == FORM, "a snapshot of this version of immure", "one of another version")
        return cls(folder, manifest, temporary=False)

    @property
    def name(self) -> str:
        """That of the box, which is the host name in it."""
        return self._manifest.name

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keeps it in a folder that must not be there. Raises SpecError."""
        target = Path(path).absolute()
        if os.path.lexists(target):
            raise SpecError("the target is there already", path=str(target), need="a name that is free")
        self._check_open()
        if self._remove is None:
            shutil.copytree(self.path, target)
            return
        detached = self._remove.detach()
        self._remove = None
        shutil.move(self.path, target)
        self.path = target
        if detached is not None:
            os.close(detached[2][1])

    def close(self) -> None:
        """Removes it, unless it was saved. Boxes that were made of it go on."""
        if self._remove is not None:
            self._remove()

    def _check_open(self) -> None:
        if not (self.path / IMAGE).is_dir():
            raise BoxLost("the snapshot is gone", need="one that is not closed", hint="make another one")

    @property
    def base(self) -> Launch:
        """What the box was made by that was copied, or the first of those that it came from."""
        return self._launch

    def launch(self) -> Launch:
        """What a box that goes on from here is made by. Raises BoxLost and RuntimeUnavailable."""
        self._check_open()
        _check(self._manifest.machine == os.uname().machine, "a machine of its kind", os.uname().machine)
        launch = restoring_launch(self._launch, str(self.path / IMAGE))
        _check(is_current(launch), "the runsc, mounts and image that it was made with", "others, or none")
        return launch

    @property
    def standing(self) -> Adopts:
        """What was under way."""
        return Adopts(self._manifest.last_stream, self._manifest.commands)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Snapshot of {self.name} in {self.path}>"


def take_snapshot(box: Box, launch: Launch, name: str) -> Snapshot:
    """A snapshot of a box that is in use, which goes on. Raises RuntimeUnavailable where its kernel is this host's."""
    if not isinstance(box, GVisorBox):
        raise RuntimeUnavailable(
            "this box can't be copied",
            need="a kernel of its own",
            have=f"the runtime {launch.runtime}",
            hint='level="L3"',
        )
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    try:
        last_stream, commands = box.checkpoint(folder)
        manifest = _Manifest(
            form=FORM,
            name=name,
            launch=msgspec.msgpack.encode(launch.to_tuple()),
            machine=os.uname().machine,
            last_stream=last_stream,
            commands=commands,
        )
        (folder / _MANIFEST).write_bytes(msgspec.msgpack.encode(manifest))
        return Snapshot(folder, manifest, temporary=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _hold(folder: Path) -> int:
    """A lock that says that somebody needs the folder; it goes with its holder, however that ends."""
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _remove(folder: Path, held: int, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
    # In a forked child the parent's is not touched.
    os.close(held)


def _sweep(above: Path) -> None:
    """Removes what callers have left that were killed: of this user, and held by nobody."""
    for folder in above.glob(f"{_PREFIX}*"):
        try:
            found = folder.lstat()
            if (
                found.st_uid != os.geteuid()
                or not stat.S_ISDIR(found.st_mode)
                or time.time() - found.st_mtime < _YOUNG_S
            ):
                continue
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            # Somebody has it.
            pass
        finally:
            os.close(held)


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
