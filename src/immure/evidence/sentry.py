"""Judges a box with a kernel in user space: the outer box by the host's readback, the workload by probes within.

What is seen from within is the Sentry's word, and counts only for what the Sentry is to enforce; that it is a Sentry
which answers is shown from the host: nothing but runsc runs in the outer box, under filters of its own. Pure, and
standard library only. Formats: proc(5), seccomp(2); errors as in errno(3).
"""

from __future__ import annotations

from immure.evidence.readback import Finding, find_namespaces, find_no_host_root, status_lines
from immure.evidence.within import (
    find_capabilities_within,
    find_files,
    find_filters,
    find_no_new_privs,
    other_kernel,
    status_within,
    with_attempts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HERE = "the Sentry"


def judge_sentry(
    items: dict[str, bytes], expected: dict[str, Any], host_namespaces: dict[str, int]
) -> tuple[Finding, ...]:
    """A finding for every part of the levels, and `kernel.user_space`.

    `items` are those of the outer box's witness, `inside/…` of the attestation within and `sentry/PID/…` of what runs
    in the outer box. What could not be read does not hold.
    """
    inside = status_within(items)
    outer = dict(status_lines(items.get("status", b"")))
    return (
        find_filters(items, inside, expected, _HERE),
        find_no_new_privs(inside, outer, _HERE),
        find_capabilities_within(inside, outer, expected, expected["outer_capabilities"], _HERE),
        find_files(items, _HERE),
        find_no_host_root(items, expected),
        *(with_attempts(one, items, expected, _HERE) for one in find_namespaces(items, host_namespaces)),
        _kernel(items, expected),
    )


def _kernel(items: dict[str, bytes], expected: dict[str, Any]) -> Finding:
    """Another kernel answers within, and on the host there is nothing that this one could run."""
    part = "kernel.user_space"
    shown, other = other_kernel(items)
    processes = sorted({name.split("/")[1] for name in items if name.startswith("sentry/")})
    programs = {items.get(f"sentry/{pid}/exe", b"?") for pid in processes}
    unfiltered = [pid for pid in processes if _seccomp(items, pid) != "2"]
    sentries = [pid for pid in processes if b"\0boot\0" in items.get(f"sentry/{pid}/cmdline", b"")]
    loose = [pid for pid in sentries if items.get(f"sentry/{pid}/lets", b"?") not in (b"nothing", b"unread")]
    carriers = b" ".join(sorted(programs)).decode("ascii", "replace")
    unread = any(items.get(f"sentry/{pid}/lets") == b"unread" for pid in sentries)
    filters = "filters unread" if unread else "filters read back"
    observed = f"{shown} within; on the host {len(processes)} processes of {carriers}, the Sentry's {filters}"
    why = "on the host something else than runsc runs in the box"
    held = programs == {expected["runsc"].encode()} and len(sentries) == 1
    if held and unfiltered:
        held, why = False, f"process {unfiltered[0]} of runsc has no filter"
    if held and loose:
        held, why = (
            False,
            f"the Sentry's filter lets through {items.get(f'sentry/{loose[0]}/lets', b'?').decode('ascii', 'replace')}",
        )
    if held and not other:
        held, why = False, "the workload sees this host's kernel"
    return Finding(part, held, observed, why)


def _seccomp(items: dict[str, bytes], pid: str) -> str | None:
    return dict(status_lines(items.get(f"sentry/{pid}/status", b""))).get("Seccomp")
