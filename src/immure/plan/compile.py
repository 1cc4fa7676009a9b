"""`compile_plan`: from what is wanted and what the host is to what will be done. Pure."""

from __future__ import annotations

from immure.host.facts import HostFacts
from immure.plan.checks import check_level
from immure.plan.firecracker import compile_firecracker
from immure.plan.gvisor import compile_gvisor
from immure.plan.model import Inputs, Plan
from immure.plan.process import compile_process
from immure.plan.qemu import compile_qemu
from immure.spec.models import Level, SandboxSpec

_COMPILERS = {
    "process": compile_process,
    "gvisor": compile_gvisor,
    "qemu": compile_qemu,
    "firecracker": compile_firecracker,
}


def runtime_of(spec: SandboxSpec) -> str:
    """The runtime that was asked for, or the usual one of the level."""
    if spec.runtime != "auto":
        return spec.runtime
    return {Level.L3: "gvisor", Level.L4: "qemu"}.get(spec.level, "process")


def compile_plan(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Plan:
    """The plan of a box.

    Raises SpecError for a spec that contradicts itself, ProtectionUnavailable for a required protection that this
    host lacks, and RuntimeUnavailable for a level that no runtime here reaches.
    """
    runtime = runtime_of(spec)
    check_level(spec, runtime)
    return _COMPILERS[runtime](spec, facts, inputs)
