"""What the kernel says of a witness in a box that has everything, and ways to take something away."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from hosts import launched, make_facts, make_spec

from immure.evidence.readback import judge

Items = dict[str, bytes]
Expected = dict[str, Any]
Change = Callable[[Items, Expected, dict[str, int]], None]

_KINDS = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
HOST = {f"ns/{kind}": 4026531830 + number for number, kind in enumerate(_KINDS)}
STATUS = """\
Name:\timmure-stem
Umask:\t0022
State:\tt (tracing stop)
Tgid:\t18557
Ngid:\t0
Pid:\t18557
PPid:\t18556
TracerPid:\t18550
Uid:\t1879049192\t1879049192\t1879049192\t1879049192
Gid:\t1879049192\t1879049192\t1879049192\t1879049192
FDSize:\t64
Groups:\t\x20
NStgid:\t18557\t3
NSpid:\t18557\t3
Kthread:\t0
VmPeak:\t    2048 kB
Threads:\t1
SigQ:\t0/96365
SigPnd:\t0000000000000000
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t2
Speculation_Store_Bypass:\tvulnerable
Cpus_allowed:\t3
Mems_allowed_list:\t0
voluntary_ctxt_switches:\t3
"""
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


#: A profile and its guard as two programs: how they are installed where one would be too long.
PROGRAMS = (struct.pack("<HBBI", 0x06, 0, 0, 0x00050001), struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))


def expected(**changes: Any) -> Expected:
    """What the plan of a default spec on a host where everything works asks of the readback, but with two filters."""
    return {**launched(make_spec(), make_facts()).expected, "filters": PROGRAMS, **changes}


def readback() -> Items:
    """As root sees it: everything held."""
    items = {
        "sentinel.before": number(0),
        "sentinel.after": number(13),
        "status": STATUS.encode(),
        "uid_map": b"         0 1879048192      65536\n",
        "gid_map": b"         0 1879048192      65536\n",
        "cgroup": b"0::/\n",
    }
    for name, inode in HOST.items():
        items[name] = (inode + 1000).to_bytes(8, "little")
    for index, program in enumerate(expected()["filters"]):
        items[f"filter/{index}"] = program
    return items


def plain_readback() -> Items:
    """As a plain user sees it: the kernel keeps filters to itself."""
    items = readback()
    del items["filter/0"], items["filter/1"]
    items["filter/0.errno"] = number(13)
    return items


def number(value: int) -> bytes:
    return struct.pack("<i", value)


def judged(items: Items, wanted: Expected | None = None, host: dict[str, int] | None = None) -> dict[str, bool]:
    """Which parts hold."""
    found = judge(items, wanted if wanted is not None else expected(), HOST if host is None else host)
    return {one.part: one.held for one in found}


def line(name: str, value: str | None) -> Change:
    """The status with another line of this name, or without it."""

    def change(items: Items, wanted: Expected, host: dict[str, int]) -> None:
        lines = items["status"].decode().splitlines()
        new = [f"{name}:\t{value}"] if value is not None else []
        at = next(index for index, one in enumerate(lines) if one.startswith(f"{name}:"))
        items["status"] = ("\n".join([*lines[:at], *new, *lines[at + 1 :]]) + "\n").encode()

    return change


def item(name: str, value: bytes | None) -> Change:
    """Another value, or none."""

    def change(items: Items, wanted: Expected, host: dict[str, int]) -> None:
        if value is None:
            del items[name]
        else:
            items[name] = value

    return change


def unreadable(name: str) -> Change:
    """The kernel's error in place of the value."""

    def change(items: Items, wanted: Expected, host: dict[str, int]) -> None:
        del items[name]
        items[f"{name}.errno"] = number(1)

    return change


def plans(**changes: Any) -> Change:
    """Another plan."""

    def change(items: Items, wanted: Expected, host: dict[str, int]) -> None:
        wanted.update(changes)

    return change


def shared(name: str) -> Change:
    """The host's own namespace."""

    def change(items: Items, wanted: Expected, host: dict[str, int]) -> None:
        items[name] = host[name].to_bytes(8, "little")

    return change


def both(*changes: Change) -> Change:
    """One after the other."""

    def change(items: Items, wanted: Expected, host: dict[str, int]) -> None:
        for one in changes:
            one(items, wanted, host)

    return change
