"""TAP devices of this host: whose one is, and lending it to a user. Linux, Documentation/networking/tuntap.rst."""

from __future__ import annotations

import fcntl
import os
import struct

from immure.errors import SpecError

_TUN = "/dev/net/tun"
_TUNSETIFF, _TUNSETOWNER = 0x400454CA, 0x400454CC
_IFF_TAP, _IFF_NO_PI, _IFF_MULTI_QUEUE = 0x2, 0x1000, 0x100
#: An owner that was never set: whoever may open /dev/net/tun can have it.
NOBODY = -1


def owner_of(name: str, caller: int) -> int:
    """The uid that a TAP device belongs to. Raises SpecError where there is none, or it is not the caller's.

    One without an owner is root's.
    """
    folder = f"/sys/class/net/{name}"
    flags, owner = _number(f"{folder}/tun_flags", 16), _number(f"{folder}/owner", 10)
    if flags is None or not flags & _IFF_TAP:
        have = "another kind of device" if os.path.exists(folder) else "none of that name"  # noqa: PTH110
        raise SpecError(
            f"{name} is no TAP device of this host",
            path="$.host_dev_name",
            need="a TAP device that exists",
            have=have,
            hint=f"ip tuntap add dev {name} mode tap user {caller}",
        )
    owner = NOBODY if owner is None else owner
    if owner != caller and not (owner == NOBODY and caller == 0):
        raise SpecError(
            f"the TAP device {name} belongs to somebody else",
            path="$.host_dev_name",
            need=f"one of user {caller}",
            have="one of root, since it has no owner" if owner == NOBODY else f"one of user {owner}",
        )
    return owner


def lend(name: str, uid: int) -> None:
    """Makes a TAP device a user's. Nothing happens to one that is gone, or for NOBODY. Raises OSError."""
    if uid == NOBODY:
        return
    flags = _number(f"/sys/class/net/{name}/tun_flags", 16)
    if flags is None:
        return
    # What it is attached with has to agree with what it was made with.
    wanted = _IFF_TAP | _IFF_NO_PI | (flags & _IFF_MULTI_QUEUE)
    fd = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), wanted))
        fcntl.ioctl(fd, _TUNSETOWNER, uid)
    finally:
        os.close(fd)


def _number(path: str, base: int) -> int | None:
    try:
        with open(path) as file:  # noqa: PTH123
            return int(file.read(), base)
    except (OSError, ValueError):
        return None
