"""What this host can do, level by level."""

from __future__ import annotations

from msgspec import Struct

from immure.engine.kvm import kvm_facts
from immure.engine.machines import machine_disks, missing_for_machines, usual_vmm
from immure.engine.prepare import host_facts
from immure.host.facts import OWN_ID_IS_ROOT, DiskFacts, HostFacts, KvmFacts, Missing
from immure.host.runsc import find_runsc
from immure.policy.landlock import LEAST_ABI


class LevelState(Struct, frozen=True):
    """Whether a level is reachable here, by which runtime, and what is missing."""

    reachable: bool
    runtime: str | None
    missing: tuple[Missing, ...]


class Disks(Struct, frozen=True):
    """Of machines with `disk_mib`: the folder that holds their disks and what formats them, or what is missing."""

    folder: str | None
    formatter: str | None
    missing: Missing | None


class Diagnosis(Struct, frozen=True):
    """Everything that `immure doctor` knows."""

    levels: dict[str, LevelState]
    facts: HostFacts
    kvm: KvmFacts
    disks: Disks


def diagnose() -> Diagnosis:
    """Looks at this host as this user."""
    facts = host_facts()
    first = _missing_for_l1(facts)
    second = (*first, *_missing_for_l2(facts))
    runsc = find_runsc()
    kernel = (runsc,) if isinstance(runsc, Missing) else ()
    kvm = kvm_facts()
    hardware, vmm = (kvm.missing,) if kvm.missing is not None else (), usual_vmm()
    return Diagnosis(
        levels={
            "L1": _state(first, "process"),
            "L2": _state(second, "process"),
            "L3": _state((*_missing_for_l3(facts), *kernel), "gvisor"),
            "L4": _state((*second, *hardware, *missing_for_machines(vmm)), vmm),
        },
        facts=facts,
        kvm=kvm,
        disks=_disks(machine_disks()),
    )


def _disks(found: DiskFacts | Missing) -> Disks:
    if isinstance(found, Missing):
        return Disks(folder=None, formatter=None, missing=found)
    return Disks(folder=found.folder, formatter=found.formatter, missing=None)


def _state(missing: tuple[Missing, ...], runtime: str | None) -> LevelState:
    return LevelState(reachable=not missing, runtime=None if missing else runtime, missing=missing)


def _missing_for_l1(facts: HostFacts) -> tuple[Missing, ...]:
    found: list[Missing] = []
    if not facts.seccomp:
        found.append(Missing(need="seccomp filters", have="refused", command="use a kernel with CONFIG_SECCOMP_FILTER"))
    if facts.ptrace is not None:
        found.append(facts.ptrace)
    return tuple(found)


def _missing_for_l3(facts: HostFacts) -> tuple[Missing, ...]:
    """Of the outer box, which needs no Landlock: its Sentry controls files."""
    return (*_missing_for_l1(facts), *_missing_namespaces(facts))


def _missing_namespaces(facts: HostFacts) -> tuple[Missing, ...]:
    found = [one for one in (facts.user_namespaces, facts.new_proc) if one is not None]
    if facts.own_id_is_host_root:
        found.append(OWN_ID_IS_ROOT)
    return tuple(found)


def _missing_for_l2(facts: HostFacts) -> tuple[Missing, ...]:
    found = list(_missing_namespaces(facts))
    if facts.landlock_abi < LEAST_ABI:
        found.append(
            Missing(
                need=f"Landlock ABI {LEAST_ABI} (Linux 6.2)",
                have=f"ABI {facts.landlock_abi}",
                command="add landlock to lsm= on the kernel's command line, or use a newer kernel",
            )
        )
    return tuple(found)
