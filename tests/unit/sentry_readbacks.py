"""What was read of a box in a Sentry, from both sides, shortened to what is judged; and ways to take something away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from readbacks import HOST, number

from immure.evidence.sentry import judge_sentry

Items = dict[str, bytes]
Expected = dict[str, Any]
Change = Callable[[Items], None]

GOFER, SENTRY, STUB = "sentry/8596", "sentry/8600", "sentry/8612"
WITHIN = (
    "Name:\timmure-guest\nUid:\t1000\t1000\t1000\t1000\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
    "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    "Mems_allowed:\t1\n"
)
#: gVisor of 2024 has neither of these lines.
WITHIN_2024 = "".join(
    line for line in WITHIN.splitlines(keepends=True) if not line.startswith(("CapAmb", "NoNewPrivs"))
)
AROUND = (
    "Name:\timmure-init\nCapInh:\t00000000802c01ff\nCapPrm:\t00000000802c01ff\nCapEff:\t00000000802c01ff\n"
    "CapBnd:\t00000000802c01ff\nCapAmb:\t00000000802c01ff\nNoNewPrivs:\t1\nSeccomp:\t0\nSeccomp_filters:\t0\n"
)
CARRIER = "Name:\texe\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"
EXPECTED: Expected = {
    "boundary": "user_kernel",
    "default_deny": True,
    "keep_capabilities": 0,
    "outer_capabilities": 0x802C01FF,
    "host_root_id": 0,
    "unknown_call": 38,
    "denied_controls": {},
    "setuid_mode": 1,
    "user_namespace": 1,
    "runsc": "/runsc",
    "host_kernel": "6.18",
}


def readback() -> Items:
    """Of the newest runsc as root: everything held."""
    items = {
        "status": AROUND.encode(),
        "uid_map": b"         0 2069430272      65536\n",
        "gid_map": b"         0 2069430272      65536\n",
        "host/uname": b"6.18.44\0#1 SMP PREEMPT_DYNAMIC",
        "inside/status": WITHIN.encode(),
        "inside/no_new_privs": b"1",
        "inside/ambient": b"0000000000000000",
        "inside/interfaces": b"lo",
        "inside/outer_opens": b"1",
        "inside/uname": b"Linux\x004.19.0-gvisor\0#1 SMP Sun Jan 10 15:06:54 PST 2016\0x86_64",
        f"{GOFER}/exe": b"/runsc",
        f"{GOFER}/status": CARRIER.encode(),
        f"{GOFER}/cmdline": b"runsc-gofer\0--root=/tmp/runsc\0gofer\0--bundle\0/bundle\0box\0",
        f"{SENTRY}/exe": b"/runsc",
        f"{SENTRY}/status": CARRIER.encode(),
        f"{SENTRY}/cmdline": b"runsc-sandbox\0--root=/tmp/runsc\0boot\0--bundle=/bundle\0box\0",
        f"{SENTRY}/lets": b"nothing",
        f"{STUB}/exe": b"/runsc",
        f"{STUB}/status": CARRIER.encode(),
        f"{STUB}/cmdline": b"",
    }
    items |= {name: (inode + 1000).to_bytes(8, "little") for name, inode in HOST.items()}
    attempts = {"network": 101, "outside_by_root": 13, "outside_file": 2, "setuid_mode": 1}
    attempts |= {"unknown_call": 38, "user_namespace": 1, "write_image": 13}
    items |= {f"inside/attempt/{name}": number(answer) for name, answer in attempts.items()}
    controls = ("network", "outside_by_root", "outside_file", "write_image")
    return items | {f"inside/control/{name}": number(0) for name in controls}


def readback_of_2024() -> Items:
    """Of Debian's runsc: its status has fewer lines, and another error says that there is no way."""
    items = readback()
    del items["inside/ambient"]
    items |= {
        "inside/status": WITHIN_2024.encode(),
        "inside/ambient.errno": number(22),
        "inside/attempt/network": number(113),
        "inside/uname": b"Linux\x004.4.0\0#1 SMP Sun Jan 10 15:06:54 PST 2016\0x86_64",
    }
    return items


def plain_readback() -> Items:
    """As a plain user sees it: the kernel keeps filters to itself."""
    return {**readback(), f"{SENTRY}/lets": b"unread"}


def judged(items: Items, **changes: Any) -> dict[str, bool]:
    return {one.part: one.held for one in judge_sentry(items, {**EXPECTED, **changes}, HOST)}


def put(name: str, value: bytes | int | None) -> Change:
    """Another value, or none."""

    def change(items: Items) -> None:
        if value is None:
            del items[name]
        else:
            items[name] = value if isinstance(value, bytes) else number(value)

    return change


def line(item: str, name: str, value: str | None) -> Change:
    """A status with another line of this name, or without it."""

    def change(items: Items) -> None:
        lines = items[item].decode().splitlines(keepends=True)
        new = [f"{name}:\t{value}\n"] if value is not None else []
        items[item] = "".join(one if not one.startswith(f"{name}:") else "".join(new) for one in lines).encode()

    return change


def all_of(*changes: Change) -> Change:
    def change(items: Items) -> None:
        for one in changes:
            one(items)

    return change
