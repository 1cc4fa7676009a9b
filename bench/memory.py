"""Memory of processes, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def pss_kib(pids: Iterable[int], of: str = "Pss") -> int:
    """Memory in RAM, shared pages by halves, thirds … proc_pid_smaps(5). Needs root for what is not dumpable.

    `of` may be a part of it, as `Pss_File`.
    """
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            # It is gone.
            continue
        for line in text.splitlines():
            if line.startswith(f"{of}:"):
                total += int(line.split()[1])
    return total
