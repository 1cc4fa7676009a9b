"""Where boxes' ids come from on this host."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from immure.host.facts import IdRange

# Above systemd-nspawn's ranges and below its foreign one (systemd, UIDS-GIDS.md); nobody is allotted these.
_ROOT_BASE = 0x7000_0000
_ROOT_SIZE = 65_536
_ROOT_SLOTS = 4_000
_PLAIN_SIZE = 1_024
_CAP_SYS_ADMIN = 21


def in_initial_user_namespace() -> bool:
    """Whether ids here are the host's own: the whole range is mapped on itself."""
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def host_root_id() -> int | None:
    """The id that stands for root outside our own user namespace, which is to be taken for the host's root.

    None where no id here does.
    """
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        inside, outside, _ = (int(word) for word in line.split())
        if outside == 0:
            return inside
    return None


def is_root() -> bool:
    """Whether this is root of the initial user namespace, and has not lost CAP_SYS_ADMIN."""
    if os.geteuid() != 0 or not in_initial_user_namespace():
        return False
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return False


def find_ids() -> IdRange:
    """Ranges of 65,536 ids as root, of 1,024 out of /etc/subuid as a plain user, else the caller's id alone."""
    if is_root():
        return IdRange(kind="ranges", base_uid=_ROOT_BASE, base_gid=_ROOT_BASE, size=_ROOT_SIZE, slots=_ROOT_SLOTS)
    tools = shutil.which("newuidmap"), shutil.which("newgidmap")
    uids, gids = _subordinate("/etc/subuid"), _subordinate("/etc/subgid")
    if None in tools or uids is None or gids is None:
        return IdRange(kind="single")
    slots = min(uids[1], gids[1]) // _PLAIN_SIZE
    if slots == 0:
        return IdRange(kind="single")
    return IdRange(
        kind="ranges",
        base_uid=uids[0],
        base_gid=gids[0],
        size=_PLAIN_SIZE,
        slots=slots,
        newuidmap=tools[0],
        newgidmap=tools[1],
    )


def _subordinate(file: str) -> tuple[int, int] | None:
    """The caller's first range in a file of subuid(5)."""
    try:
        text = Path(file).read_text()
    except OSError:
        return None
    uid = os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    for line in text.splitlines():
        owner, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if owner in (name, str(uid)) and start.isdigit() and count.isdigit():
            return int(start), int(count)
    return None
