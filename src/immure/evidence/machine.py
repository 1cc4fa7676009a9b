"""Judges a box in a virtual machine: the box around its VMM as any box, the workload by probes within.

That a machine answers is shown from the host: nothing but the VMM runs in the outer box, under filters of its own, and
within there is another kernel. Pure, and standard library only.
"""

from __future__ import annotations

from immure.evidence.readback import Finding, judge, status_lines
from immure.evidence.within import (
    attempt,
    find_capabilities_within,
    find_files,
    find_filters,
    find_no_new_privs,
    other_boot,
    release_within,
    status_within,
    with_attempts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_HERE = "the machine"
_EACCES = 13
#: The end of a tunnel to nowhere that a Linux with IPv6 makes.
_ENDS = frozenset({"sit0"})


def judge_machine(
    items: dict[str, bytes], expected: dict[str, Any], host_namespaces: dict[str, int]
) -> tuple[Finding, ...]:
    """A finding for every part of the levels, `kernel.machine`, and `kernel.hardware` where that is expected.

    `items` are those of the outer box's witness, `inside/…` of the attestation within and `vmm/PID/…` of what runs in
    the outer box. A part holds where it does on both sides. What could not be read does not hold.
    """
    inside = status_within(items)
    outer = dict(status_lines(items.get("status", b"")))
    around = {one.part: one for one in judge(items, expected["around"], host_namespaces)}
    within = (
        find_filters(items, inside, expected, _HERE),
        find_no_new_privs(inside, outer, _HERE),
        find_capabilities_within(inside, outer, expected, expected["around"]["keep_capabilities"], _HERE),
        _find_landlock(find_files(items, _HERE), items, expected["landlock"]),
    )
    both = {one.part: _both(one, around[one.part]) for one in within}
    rest = (with_attempts(one, items, expected, _HERE, _ENDS) for one in around.values() if one.part not in both)
    hardware = (_hardware(items),) if expected["hardware"] else ()
    return (*both.values(), *rest, _kernel(items, expected), *hardware)


def _both(within: Finding, around: Finding) -> Finding:
    """What is seen within, and held by the box around the VMM too."""
    if not within.held:
        return within
    why = f"around the VMM: {around.why} ({around.observed})" if not around.held else within.why
    return Finding(within.part, around.held, within.observed, why)


def _find_landlock(found: Finding, items: dict[str, bytes], wanted: str | None) -> Finding:
    """A file that everybody may read and no rule covers: a process that has passed the last stage can't open it.

    `wanted` is `required` or `best_effort`, with which a kernel may have none.
    """
    if wanted is None:
        return found
    seen, control = attempt(items, "attempt/uncovered"), attempt(items, "control/uncovered")
    domain = seen == _EACCES and control == 0
    observed = f"{found.observed}, outside of Landlock's rules {seen} (there {control})"
    none = wanted != "required" and seen == control == 0
    why = found.why if domain or none else "Landlock does not hold in the machine"
    return Finding(found.part, found.held and (domain or none), observed, why)


def _hardware(items: dict[str, bytes]) -> Finding:
    """That KVM is hardware's was tried before; that this machine is KVM's is seen by what its VMM has open."""
    opened = [value for name, value in items.items() if name.startswith("vmm/") and name.endswith("/kvm")]
    observed = f"the VMM has {b' '.join(opened).decode('utf-8', 'replace') or 'nothing'} of KVM open"
    return Finding("kernel.hardware", opened == [b"a machine"], observed, "the machine is not KVM's")


def _kernel(items: dict[str, bytes], expected: dict[str, Any]) -> Finding:
    """Another kernel answers within, and on the host there is nothing that this one could run."""
    shown = release_within(items)
    other = bool(shown) and other_boot(items)
    processes = sorted({name.split("/")[1] for name in items if name.startswith("vmm/")})
    programs = {items.get(f"vmm/{pid}/exe", b"?").decode("utf-8", "replace") for pid in processes}
    statuses = [dict(status_lines(items.get(f"vmm/{pid}/status", b""))) for pid in processes]
    observed = f"{shown} within; on the host {len(processes)} process of {' '.join(sorted(programs))}"
    bare = [one for one in statuses if (one.get("Seccomp"), one.get("NoNewPrivs")) != ("2", "1")]
    if programs != {expected["program"]} or len(processes) != 1:
        return Finding("kernel.machine", False, observed, "on the host something else than the VMM runs in the box")
    if bare:
        return Finding("kernel.machine", False, observed, "the VMM has no filter, or could gain privileges")
    return Finding("kernel.machine", other, observed, "the workload sees this host's kernel")
