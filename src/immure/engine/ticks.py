"""How quickly this host's counter of ticks runs, measured once for each boot.

A distribution's kernel measures it by a timer that is emulated too, and on a busy host gives up; so it is told.
"""

from __future__ import annotations

import os
import subprocess

from immure.engine import cache
from immure.host.native import native_program

_TIMEOUT_S = 20.0


def ticks_khz() -> int | None:
    """In kHz; None where this processor has no such counter."""
    if os.uname().machine != "x86_64":
        return None
    key = "ticks-" + cache.key_of(cache.host_key())
    stored = cache.load(key)
    if isinstance(stored, int):
        return stored
    told = subprocess.run([native_program(), "ticks"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    khz = int(told.stdout)
    cache.store(key, khz)
    return khz
