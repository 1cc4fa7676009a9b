"""The cache of facts and launches: `$XDG_CACHE_HOME/immure`, private to its user.

What it holds is read back without further checks, so a folder or file that somebody else owns or may write is not
used at all. Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import marshal
import os
import stat
from _blake2 import blake2b

from immure.host.identity import identity_of
from immure.host.listing import list_image
from immure.plan.launch import FORM, Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    import signal as _signal
    from typing import Any

    from immure.plan.launch import Launch
else:
    import _signal

_MOST = 256
_PRESETS = ("default", "strict", "python", "node", "build", "network-client")
_DECIDING = (
    *(f"/plan/{name}.py" for name in ("process", "gvisor", "bundle", "qemu", "qemu_arguments", "answers", "launching")),
    *(f"/plan/{name}.py" for name in ("firecracker", "firecracker_config", "filters", "image", "limits", "root")),
    *(f"/plan/machine{name}.py" for name in ("", "_clauses", "_landlock", "_mounts", "_space")),
    *("/policy/landlock.py", "/policy/seccomp/guard.py"),
    *(f"/policy/seccomp/presets/{name}.json" for name in _PRESETS),
)
_INTERRUPTS = (1, 2, 3, 15)

_LOOKED_AT = ("/", "/etc", "/etc/subuid", "/etc/subgid")
#: They stand for the container that we may be in.
_NAMESPACES = ("/proc/self/ns/user", "/proc/self/ns/mnt")
#: Where version 2 is, alone or beside version 1.
_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
_PRIVATE = stat.S_IRWXG | stat.S_IRWXO


def key_of(*parts: Any) -> str:
    """A file name for what was made from `parts`, which marshal can write."""
    # Version 2 writes no references, so that equal parts are written alike however they came about.
    return blake2b(marshal.dumps((FORM, parts), 2), digest_size=16).hexdigest()


def host_key() -> tuple[object, ...]:
    """What facts depend on: the boot, the user, the native program, our cgroups, and what `image: host` shows."""
    program = os.environ.get("IMMURE_INIT") or _package() + "/_native/immure-init"
    return (
        _read("/proc/sys/kernel/random/boot_id"),
        os.geteuid(),
        os.getegid(),
        _identity(program),
        package_key(),
        _cgroups(),
        _lines("/proc/self/status", (b"Groups", b"CapEff")),
        _lines("/proc/self/limits", (b"Max processes",)),
        tuple(_identity(path) for path in _LOOKED_AT),
        tuple(os.stat(path).st_ino for path in _NAMESPACES),  # noqa: PTH116
    )


def _cgroups() -> tuple[object, ...]:
    """Ours, and what those of version 2 above pass on and to whom: units get their delegation while the host runs."""
    membership = _read("/proc/self/cgroup")
    mount = next((one for one in _CGROUPS if os.path.exists(one + "/cgroup.controllers")), None)  # noqa: PTH110
    own = next((os.fsdecode(line[3:]) for line in membership.split(b"\n") if line.startswith(b"0::")), None)
    if mount is None or own is None:
        return (membership,)
    place = mount + own.rstrip("/")
    found: list[object] = []
    while len(place) >= len(mount):
        found.append((_read(place + "/cgroup.subtree_control"), os.access(place, os.W_OK)))
        place = place.rpartition("/")[0]
    return (membership, *found)


def package_key() -> tuple[object, ...]:
    """What decides of filters and plans, where the package is worked on in place."""
    return tuple(_identity(_package() + name) for name in _DECIDING)


def _package() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120


def _identity(path: str) -> tuple[str, int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return path, found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def is_current(launch: Launch) -> bool:
    """Whether what a launch names on this host is what it was: the kinds of its sources, its image, its programs."""
    return (
        all(kind_of(path) == kind for path, kind in launch.sources)
        and _has_same_image(launch)
        and all(identity_of(path) == identity for path, identity in launch.programs)
    )


def _has_same_image(launch: Launch) -> bool:
    if launch.image is None:
        return True
    path, listing = launch.image
    try:
        return list_image(path) == listing
    except OSError:
        return False


def kind_of(path: str) -> str | None:
    """The kind of a mount's source, now."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else None


def _prune(place: str) -> None:
    """Keeps the newest entries. An old one costs its maker a few milliseconds, once."""
    with os.scandir(place) as entries:
        files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
        found = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in files)
    for _, path in found[:-_MOST]:
        os.unlink(path)  # noqa: PTH108


def _lines(path: str, names: tuple[bytes, ...]) -> tuple[bytes, ...]:
    return tuple(line for line in _read(path).splitlines() if line.startswith(names))


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def folder() -> str | None:
    """The cache's folder, made where it is missing; None where it can't be trusted or made."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    path = base + "/immure"
    try:
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            os.makedirs(base, exist_ok=True)  # noqa: PTH103
            try:
                os.mkdir(path, 0o700)  # noqa: PTH102
            except FileExistsError:
                # Another one has made it meanwhile.
                pass
            found = os.lstat(path)
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & _PRIVATE
    return path if private else None


def load(name: str) -> object | None:
    """What `store` wrote under this name, or None."""
    place = folder()
    if place is None:
        return None
    try:
        fd = os.open(f"{place}/{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & _PRIVATE:
            return None
        return marshal.loads(os.read(fd, found.st_size))
    except (OSError, EOFError, ValueError, TypeError, MemoryError):
        return None
    finally:
        os.close(fd)


def store(name: str, value: Any) -> None:
    """Writes a value of plain types. A cache that can't be written is no error."""
    place = folder()
    if place is None:
        return
    temporary = f"{place}/.{name}.{os.getpid()}"
    # Ctrl-C between the two names would leave the first behind.
    blocked = _signal.pthread_sigmask(_signal.SIG_BLOCK, _INTERRUPTS)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, marshal.dumps(value))
        finally:
            os.close(fd)
        os.rename(temporary, f"{place}/{name}")  # noqa: PTH104
        _prune(place)
    except OSError:
        return
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, blocked)
