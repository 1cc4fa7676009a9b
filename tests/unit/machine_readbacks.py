"""What is read of a box in a machine, from both sides, and what a plan asks of it."""

from __future__ import annotations

from typing import Any

from readbacks import HOST
from readbacks import expected as around
from readbacks import readback as read_around
from sentry_readbacks import WITHIN, Expected, Items, number

from immure.evidence.machine import judge_machine

PROGRAM, VMM = "/usr/bin/qemu-system-x86_64", "vmm/8600"
EXPECTED: Expected = {
    "boundary": "machine",
    "hardware": False,
    "program": PROGRAM,
    "around": around(),
    "default_deny": True,
    "landlock": "required",
    "keep_capabilities": 0,
    "unknown_call": 38,
    "setuid_mode": 1,
    "user_namespace": 1,
    "denied_controls": {},
}
_ANSWERS = {
    "attempt/unknown_call": 38,
    "attempt/setuid_mode": 1,
    "attempt/user_namespace": 1,
    "attempt/outside_file": 2,
    "control/outside_file": 0,
    "attempt/outside_by_root": 13,
    "control/outside_by_root": 0,
    "attempt/write_image": 13,
    "control/write_image": 0,
    "attempt/uncovered": 13,
    "control/uncovered": 0,
    "attempt/network": 101,
    "control/network": 0,
}


def readback() -> Items:
    """As root sees it: everything held."""
    return {
        **read_around(),
        **{f"inside/{name}": number(answer) for name, answer in _ANSWERS.items()},
        "inside/status": WITHIN.encode(),
        "inside/no_new_privs": b"1",
        "inside/ambient": b"0000000000000000",
        "inside/uname": b"Linux\x006.12.117\0#1 Sat Nov 28\0x86_64",
        "inside/interfaces": b"lo\nsit0",
        "inside/outer_opens": b"1",
        "inside/boot_id": b"11111111-0000-4000-8000-000000000000\n",
        "host/boot_id": b"22222222-0000-4000-8000-000000000000\n",
        f"{VMM}/exe": PROGRAM.encode(),
        f"{VMM}/kvm": b"nothing",
        f"{VMM}/status": b"Name:\tqemu-system-x86\nNoNewPrivs:\t1\nSeccomp:\t2\n",
    }


def judged(items: Items, **changes: Any) -> dict[str, bool]:
    return {one.part: one.held for one in judge_machine(items, {**EXPECTED, **changes}, HOST)}
