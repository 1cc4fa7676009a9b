"""What jailed machines have of this host: each a user of its own, and a folder that records what else is made for it.

The folder is made first and goes last. Its owner holds a lock in it; what is left where nobody does is swept by the
next that comes. All in one folder that root alone can enter.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import struct
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from immure.errors import BoxError, SetupFailed
from immure.host.facts import ROOT_RANGES
from immure.runtimes.firecracker import taps

#: Right above the ranges of root's boxes, and below systemd's foreign one (systemd, UIDS-GIDS.md).
FIRST_UID: Final = ROOT_RANGES.base_uid + ROOT_RANGES.size * ROOT_RANGES.slots
UIDS: Final = 65_536
#: A file system that has devices and programs: /run often has neither.
PLACE = "/var/lib/immure/vmms"
SETTING = "IMMURE_VMMS"
#: A byte for each user, locked by who has it. fcntl(2), open file description locks.
_IDS = Path("/run/immure/vmms.lock")
_F_OFD_SETLK: Final = 37
_GONE_S, _STEP_S = 10.0, 0.002


class Loan(Struct, frozen=True):
    """A TAP device that a machine's user has for now, and whose it was."""

    name: str
    owner: int


class Record(Struct, frozen=True):
    """What was made, or is about to be, outside the folder."""

    cgroups: tuple[str, ...] = ()
    #: Lent, and made for it.
    taps: tuple[Loan, ...] = ()
    made_taps: tuple[str, ...] = ()


class Claim:
    """One machine's user and folder, until `give_back`."""

    def __init__(self, place: str) -> None:
        """Raises SetupFailed."""
        with _locked(place) as base:
            self.uid, self._id = _free_id(base)
            self.path = base / str(self.uid)
            self.path.mkdir(mode=0o700)
            self._lock = _new_lock(self.path)
        self.record = Record()

    def write(self, **changes: object) -> None:
        """Records what is about to be made."""
        self.record = msgspec.structs.replace(self.record, **changes)
        new = self.path / ".record"
        new.write_bytes(msgspec.json.encode(self.record))
        new.rename(self.path / "record")

    def give_back(self) -> None:
        """Removes all that the record names, and the folder. Raises SetupFailed where something stays."""
        if self._lock < 0:
            return
        _undo(self.path, self.uid, self.record)
        os.close(self._lock)
        os.close(self._id)
        self._lock = -1


def sweep(place: str) -> int:
    """Removes what owners that are gone have left, and says of how many machines."""
    swept = 0
    with _locked(place) as base:
        for folder in base.iterdir():
            if folder.name.isdigit() and (lock := _abandoned(folder)) is not None:
                try:
                    _undo_left(folder, int(folder.name))
                finally:
                    os.close(lock)
                swept += 1
    return swept


def _undo_left(folder: Path, uid: int) -> None:
    held = _lock_id(uid)
    if held is None:
        # Somebody with another place has this user now: what runs is theirs.
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        _undo(folder, uid, _recorded(folder))
    finally:
        os.close(held)


def _undo(folder: Path, uid: int, record: Record) -> None:
    _end_all(uid)
    for loan in record.taps:
        _return(loan, uid)
    for name in record.made_taps:
        _remove_tap(name, uid)
    for cgroup in record.cgroups:
        _remove_cgroup(cgroup)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise SetupFailed(f"{folder} can't be removed", step="sweep", need="an empty folder", have="files that stay")


def _return(loan: Loan, uid: int) -> None:
    """Gives a TAP device back, unless it is gone or somebody else's by now."""
    if taps.owner(loan.name) != uid:
        return
    try:
        taps.lend(loan.name, loan.owner)
    except OSError as error:
        raise SetupFailed(
            f"the TAP device {loan.name} can't be given back",
            step="tap",
            errno=error.errno or 0,
            need=f"user {loan.owner} to have it again",
            have=error.strerror,
        ) from error


def _remove_tap(name: str, uid: int) -> None:
    try:
        taps.remove(name, uid)
    except OSError as error:
        raise SetupFailed(
            f"the TAP device {name} can't be removed", step="tap", errno=error.errno or 0, have=error.strerror
        ) from error


def _end_all(uid: int) -> None:
    """Kills what still runs as a user that is nobody's but this machine's."""
    deadline = time.monotonic() + _GONE_S
    while running := [pid for pid in processes() if runs_as(pid, uid)]:
        for pid in running:
            _kill(pid, uid)
        if time.monotonic() > deadline:
            raise SetupFailed("processes of a machine stay", step="kill", need=f"none of user {uid}", have=str(running))
        time.sleep(_STEP_S)


def _kill(pid: int, uid: int) -> None:
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # The number may be another's by now; the descriptor stays whose it is.
        if runs_as(pid, uid):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


def processes() -> Iterator[int]:
    """All of this host."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208


def runs_as(pid: int, uid: int) -> bool:
    """Whether it runs as that user. One that has ended and waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return False
    return b"\nUid:\t%d\t" % uid in status and b"\nState:\tZ" not in status


def _remove_cgroup(path: str) -> None:
    deadline = time.monotonic() + _GONE_S
    while True:
        try:
            os.rmdir(path)  # noqa: PTH106
        except FileNotFoundError:
            return
        except OSError as error:
            # What has ended leaves its cgroup a moment later.
            if time.monotonic() > deadline:
                raise SetupFailed(f"{path} can't be removed", step="cgroup", have=error.strerror) from error
            time.sleep(_STEP_S)


@contextmanager
def _locked(place: str) -> Generator[Path]:
    """Alone among all who claim and sweep there."""
    base = Path(place)
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_place(base)
        lock = os.open(base / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SetupFailed(
            f"{place} can't be used for jailed machines",
            step="place",
            errno=error.errno or 0,
            need="a folder that root can make and write",
            have=error.strerror,
            hint=f"name another in {SETTING}",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield base
    finally:
        os.close(lock)


def _check_place(base: Path) -> None:
    found = base.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        have = f"user {found.st_uid}, mode {stat.S_IMODE(found.st_mode):o}"
        need = f"a folder of user {os.geteuid()} that nobody else can enter (mode 700)"
        raise SetupFailed(f"{base} can't be used for jailed machines", step="place", need=need, have=have)
    flags = os.statvfs(base).f_flag
    if flags & (os.ST_NODEV | os.ST_NOEXEC | os.ST_RDONLY):
        raise SetupFailed(
            f"{base} can't be used for jailed machines",
            step="place",
            need="a file system with devices and programs, which a jailer makes there",
            have="one that is mounted nodev, noexec or ro",
            hint=f"name a folder of another one in {SETTING}",
        )


def _free_id(base: Path) -> tuple[int, int]:
    """A user that no machine of this host has, and the lock that makes it so."""
    start = os.getpid() * 131 % UIDS
    for step in range(UIDS):
        uid = FIRST_UID + (start + step) % UIDS
        if not (base / str(uid)).exists() and (lock := _lock_id(uid)) is not None:
            return uid, lock
    raise BoxError("no user is left for another machine", need="one that no machine has", have=f"{UIDS} machines")


def _lock_id(uid: int) -> int | None:
    """A descriptor that holds a user against everybody on this host, whatever their place; None where one is held."""
    _IDS.parent.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(_IDS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    byte = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, uid - FIRST_UID, 1, 0)
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, byte)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _new_lock(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def _abandoned(folder: Path) -> int | None:
    """A lock on a folder that nobody has; None where somebody does."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _recorded(folder: Path) -> Record:
    try:
        return msgspec.json.decode((folder / "record").read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.DecodeError):
        # It was written whole or not at all, and before what it names.
        return Record()
