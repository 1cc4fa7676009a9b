"""The spawners of this process: one for each way of making boxes, started when first needed.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import _thread
import atexit
import os

from immure.errors import SetupFailed
from immure.host.native import native_path, native_program
from immure.plan.launch import Launch
from immure.runtimes.process.cgroups import sweep
from immure.runtimes.process.spawner import Spawner

_spawners: dict[tuple[str, bytes], Spawner] = {}
_lock = _thread.allocate_lock()


def _after_fork() -> None:
    """The parent's spawners are not the child's, and the lock may be held by a thread that the child does not have."""
    global _lock
    _lock = _thread.allocate_lock()
    for spawner in _spawners.values():
        spawner.forget()
    _spawners.clear()


os.register_at_fork(after_in_child=_after_fork)
# A zombie for each spawner is not what a process should leave behind.
atexit.register(lambda: close_all())


def spawner_for(launch: Launch) -> Spawner:
    """A living spawner for this launch. A forked child starts its own; the parent's are not touched."""
    key = (native_path(), launch.config)
    with _lock:
        spawner = _spawners.get(key)
        if spawner is None or not spawner.alive():
            lock = _open_lock(launch) if launch.ranges else None
            try:
                spawner = Spawner(native_program(), launch.config, lock)
            finally:
                if lock is not None:
                    os.close(lock)
            _spawners[key] = spawner
            # What an earlier one that was killed together with its owner left behind.
            sweep(launch)
        return spawner


def replace(launch: Launch, lost: Spawner | None) -> Spawner:
    """Another spawner in place of one that is gone, or is about to be."""
    key = (native_path(), launch.config)
    with _lock:
        if lost is not None and _spawners.get(key) is lost:
            del _spawners[key]
            lost.close()
    return spawner_for(launch)


def close_all() -> None:
    """Ends the spawners that this process started, and with them their boxes."""
    with _lock:
        for spawner in _spawners.values():
            spawner.close()
        _spawners.clear()


def _open_lock(launch: Launch) -> int:
    """The file whose bytes stand for ranges of ids. All spawners of one user share it."""
    place = "/run/immure" if launch.root else _own_folder()
    try:
        os.makedirs(place, mode=0o700, exist_ok=True)  # noqa: PTH103
        if os.lstat(place).st_uid != os.geteuid():
            raise SetupFailed(
                f"{place} belongs to somebody else",
                step="id range",
                need="a folder of this user",
                hint=f"remove {place}",
            )
        return os.open(f"{place}/ids.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupFailed(
            f"the lock file of the id ranges can't be opened: {error.filename}",
            step="id range",
            errno=error.errno or 0,
            have=error.strerror,
        ) from error


def _own_folder() -> str:
    """The same for all processes of this user, whatever their environment says. Not a cache: locks are held there."""
    import pwd

    uid = os.geteuid()
    try:
        home = pwd.getpwuid(uid).pw_dir
    except KeyError:
        home = ""
    return f"{home}/.local/state/immure" if home and os.access(home, os.W_OK) else f"/tmp/immure-{uid}"
