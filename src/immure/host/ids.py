"""Where boxes' ids come from on this host."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from immure.host.facts import ROOT_RANGES, IdRange

_PLAIN_SIZE = 1_024
_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP, _CAP_SYS_ADMIN = 6, 7, 8, 21


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
    return os.geteuid() == 0 and in_initial_user_namespace() and _has(_CAP_SYS_ADMIN)


def switches_user() -> bool:
    """Whether a process of ours can become another user of the host for good."""
    return in_initial_user_namespace() and _has(_CAP_SETGID, _CAP_SETUID, _CAP_SETPCAP)


def _has(*capabilities: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return all(int(line.split()[1], 16) >> one & 1 for one in capabilities)
    return False


def find_ids() -> IdRange:
    """Ranges of 65,536 ids as root, of 1,024 out of /etc/subuid as a plain user, else the caller's id alone."""
    if is_root():
        return ROOT_RANGES
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
