"""What is said where a machine does not come up: by QEMU, or by the kernel and our init on its console."""

from __future__ import annotations

import os

from immure.errors import BoxError, BoxLost, SetupFailed
from immure.plan.launch import Launch
from immure.plan.machine import OUTER_USER
from immure.plan.qemu_arguments import CONSOLE
from immure.runtimes.base import Commands
from immure.runtimes.guest.outer import UnderWay, carrier_request
from immure.runtimes.guest.vmm import reason_on

_SAID_BYTES, _CONSOLE_BYTES = 16 * 1024, 16 * 1024


#: What its failure is called, what it is, and what to do.
STEP, FAILED = "qemu", "the machine did not come up"
REMEDY = "see `immure doctor`; IMMURE_KERNEL names another kernel, IMMURE_QEMU another QEMU"
_MOST_SAID = 1000


def not_up(error: BoxError, said: str) -> BoxError:
    """The error with what was said, if anything was."""
    if not said:
        return error
    return SetupFailed(FAILED, step=STEP, have=said.splitlines()[-1][:_MOST_SAID], hint=REMEDY)


def said_by(said: int, outer: Commands, launch: Launch) -> str:
    """`said` is what QEMU writes of itself, which is not waited for."""
    try:
        told = os.read(said, _SAID_BYTES).decode(errors="replace").strip()
    except OSError:
        told = ""
    return told or _on_console(outer, launch)


def _on_console(outer: Commands, launch: Launch) -> str:
    request = carrier_request(launch, ("files", "read", CONSOLE, "0", str(_CONSOLE_BYTES)), OUTER_USER)
    request.output_bytes = 2 * _CONSOLE_BYTES
    try:
        with UnderWay(outer, request, builtin=True) as reading:
            return reason_on(bytes(reading.ended().sinks[0].data).decode(errors="replace"))
    except (BoxLost, SetupFailed):
        return ""
