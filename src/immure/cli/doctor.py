"""`immure doctor`: which levels this host reaches, what is missing, and the command that would change it."""

from __future__ import annotations

import sys
from typing import Any

import msgspec

from immure.cli.execute import printable
from immure.engine.doctor import Diagnosis, Disks, diagnose
from immure.host.facts import HostFacts


def doctor(*, level: str | None, json: bool) -> int:
    """Prints the diagnosis. 0 where `level`, or L2, is reachable, else 1."""
    diagnosis = diagnose()
    if json:
        document: dict[str, Any] = {
            "schema": "immure.doctor/v1",
            **msgspec.to_builtins(diagnosis),
            "error": None,
        }
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    else:
        _print(diagnosis)
    return 0 if diagnosis.levels[level or "L2"].reachable else 1


def _print(diagnosis: Diagnosis) -> None:
    lines: list[str] = []
    for name, state in diagnosis.levels.items():
        lines.append(f"{name}  {'reachable, by ' + str(state.runtime) if state.reachable else 'not reachable'}")
        for missing in state.missing:
            lines.append(f"      needs {missing.need}")
            lines.append(f"      have  {missing.have}")
            if missing.command:
                lines.append(f"      to do {missing.command}")
    facts = diagnosis.facts
    lines.append("")
    lines.append(f"kernel {facts.kernel[0]}.{facts.kernel[1]} {facts.arch}, Landlock ABI {facts.landlock_abi}")
    lines.append(f"user {facts.uid}: {_ids(diagnosis)}")
    lines.append(f"KVM: {diagnosis.kvm.kind}")
    lines.append(f"disks of machines (disk_mib): {_disks(diagnosis.disks)}")
    lines += _cgroups(facts)
    sys.stdout.write("".join(printable(line) + "\n" for line in lines))


def _disks(disks: Disks) -> str:
    if disks.missing is None:
        return f"in {disks.folder}, by {disks.formatter}"
    return f"none; needs {disks.missing.need}; have {disks.missing.have}; to do {disks.missing.command}"


def _cgroups(facts: HostFacts) -> list[str]:
    lines = [f"cgroups in {one.path} (v{one.version}): {' '.join(one.controllers)}" for one in facts.cgroups]
    if facts.no_cgroups:
        lines.append(f"no cgroups of v2: {facts.no_cgroups}")
    return lines or ["no cgroups"]


def _ids(diagnosis: Diagnosis) -> str:
    ids = diagnosis.facts.ids
    if ids.kind == "single":
        return "boxes map one id (install newuidmap and add a range to /etc/subuid for more)"
    return f"boxes have {ids.size} ids each"
