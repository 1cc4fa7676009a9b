"""TAP devices of this host: whose one is, lending it to a user, and ones of our own making.

Source: Linux, Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Generator
from contextlib import contextmanager

from immure.errors import SpecError

_TUN = "/dev/net/tun"
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_MULTI_QUEUE, _IFF_TUN_EXCL = 0x2, 0x1000, 0x100, 0x8000
#: An owner that was never set: whoever may open /dev/net/tun can have it.
NOBODY = -1


def owner_of(name: str, caller: int) -> int:
    """The uid that a TAP device belongs to. Raises SpecError where there is none, or it is not the caller's.

    One without an owner is root's.
    """
    folder = f"/sys/class/net/{name}"
    flags = _number(f"{folder}/tun_flags", 16)
    if flags is None or not flags & _IFF_TAP:
        have = "another kind of device" if os.path.exists(folder) else "none of that name"  # noqa: PTH110
        raise SpecError(
            f"{name} is no TAP device of this host",
            path="$.host_dev_name",
            need="a TAP device that exists",
            have=have,
            hint=f"ip tuntap add dev {name} mode tap user {caller}",
        )
    found = owner(name)
    if found != caller and not (found == NOBODY and caller == 0):
        raise SpecError(
            f"the TAP device {name} belongs to somebody else",
            path="$.host_dev_name",
            need=f"one of user {caller}",
            have="one of root, since it has no owner" if found == NOBODY else f"one of user {found}",
        )
    return found


def owner(name: str) -> int:
    """The uid that a device was given to; NOBODY where it was not, or there is none."""
    found = _number(f"/sys/class/net/{name}/owner", 10)
    return NOBODY if found is None else found


def lend(name: str, uid: int) -> None:
    """Makes a TAP device a user's. Nothing happens to one that is gone, or for NOBODY. Raises OSError."""
    if uid == NOBODY:
        return
    flags = _number(f"/sys/class/net/{name}/tun_flags", 16)
    if flags is None:
        return
    # What it is attached with has to agree with what it was made with.
    with _attached(name, flags & _IFF_MULTI_QUEUE) as fd:
        fcntl.ioctl(fd, _TUNSETOWNER, uid)


def make(name: str, uid: int) -> None:
    """Makes one that is a user's, and down. Raises OSError, also where there is a device of that name."""
    with _attached(name, _IFF_TUN_EXCL) as fd:
        fcntl.ioctl(fd, _TUNSETOWNER, uid)
        fcntl.ioctl(fd, _TUNSETPERSIST, 1)


def remove(name: str, uid: int) -> None:
    """Removes one that was made for a user. Nothing happens to what is gone, or somebody else's. Raises OSError."""
    if owner(name) != uid:
        return
    with _attached(name, 0) as fd:
        fcntl.ioctl(fd, _TUNSETPERSIST, 0)


@contextmanager
def _attached(name: str, flags: int) -> Generator[int]:
    fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | flags))
        yield fd
    finally:
        os.close(fd)


def _number(path: str, base: int) -> int | None:
    try:
        with open(path) as file:  # noqa: PTH123
            return int(file.read(), base)
    except (OSError, ValueError):
        return None
