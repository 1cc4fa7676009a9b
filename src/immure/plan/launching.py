"""From a plan to a launch: plain values, and what the readback must show. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from immure.host.facts import ROOT_RANGES, HostFacts, IdRange, MachineFacts, ProgramFacts
from immure.plan.launch import Launch
from immure.plan.limits import own_processes
from immure.plan.model import BARE_ENV, BASE_ENV, Inputs, Plan
from immure.plan.operations import UserMount
from immure.plan.root import mount_path
from immure.spec.models import SandboxSpec


def make_launch(plan: Plan, spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Launch:
    """The plan in plain values, with what the readback must show."""
    launch = Launch()
    launch.wire = plan.wire()
    launch.plan_sha256 = hashlib.sha256(launch.wire).hexdigest()
    launch.host_sha256 = plan.host_sha256
    launch.runtime = plan.runtime
    launch.level = str(spec.level)
    launch.mac = _mac(plan, facts, inputs)
    launch.decides = plan.decides
    launch.terminals = plan.terminals
    launch.image = (inputs.image.path, inputs.image.listing) if inputs.image is not None else None
    launch.changes, launch.booted, launch.disk = plan.changes, plan.booted, plan.disk
    launch.carrier, launch.guest = plan.carrier, plan.guest
    launch.programs = ()
    if isinstance(inputs.runsc, ProgramFacts):
        launch.programs = ((inputs.runsc.path, inputs.runsc.identity),)
    if isinstance(inputs.machine, MachineFacts):
        named = (inputs.machine.vmm, inputs.machine.kernel)
        launch.programs = (*((one.path, one.identity) for one in named), *inputs.machine.files, *inputs.machine.booted)
    if inputs.image is not None and inputs.image.origin is not None:
        launch.programs += (inputs.image.origin,)
    launch.expected = plan.expects or {
        # In the order of installation, in which the kernel gives them back.
        "filters": plan.command.filters,
        "default_deny": plan.default_deny,
        "keep_capabilities": plan.command.keep_capabilities,
        "user": plan.user,
        "host_root_id": facts.host_root_id,
        "landlock_abi": facts.landlock_abi if plan.landlock is not None else 0,
    }
    launch.report = tuple((c.clause, c.wanted, c.got, c.by, c.why) for c in plan.report)
    # In the order in which they are attached.
    kinds = {source.path: source.kind for source in inputs.sources}
    launch.sources = tuple((op.source, kinds[op.source]) for op in plan.root if isinstance(op, UserMount))
    launch.user = spec.processes.user if plan.carrier else plan.user
    launch.env = {**(BARE_ENV if plan.bare else BASE_ENV), **spec.env}
    launch.workdir = _workdir(spec, inputs, "/" if plan.bare else "/tmp")
    launch.timeout_s = spec.limits.timeout_s
    output = spec.limits.output_mib
    launch.config = spawner_config(facts, host_network=spec.network.mode == "host" or plan.bare, bare=plan.bare)
    launch.root = facts.root or (plan.bare and facts.switches_user)
    launch.cgroups = tuple(dict.fromkeys(limit.parent for limit in plan.cgroup))
    launch.own_processes = own_processes(bare=plan.bare)
    launch.ranges = _id_source(facts, bare=plan.bare).kind == "ranges"
    launch.output_bytes = int(output * (1 << 20)) if output is not None else None
    return launch


def _mac(plan: Plan, facts: HostFacts, inputs: Inputs) -> str | None:
    """What controls files: Landlock, or a kernel of the box's own, by its mounts."""
    if isinstance(inputs.runsc, ProgramFacts) and plan.carrier:
        return f"gvisor/{inputs.runsc.version}"
    if isinstance(inputs.machine, MachineFacts):
        return f"{plan.runtime}/{inputs.machine.vmm.version}"
    return f"landlock/{facts.landlock_abi}" if plan.landlock is not None else None


def spawner_config(facts: HostFacts, *, host_network: bool, bare: bool) -> bytes:
    """The first message to a spawner on this host."""
    source = _id_source(facts, bare=bare)
    ids: dict[str, object] = {"kind": source.kind}
    if source.kind == "ranges":
        ids.update(
            base_uid=source.base_uid,
            base_gid=source.base_gid,
            size=source.size,
            slots=source.slots,
            newuidmap=source.newuidmap,
            newgidmap=source.newgidmap,
        )
    return msgspec.msgpack.encode(
        {
            "rootless": not (facts.root or (bare and facts.switches_user)),
            "bare": bare,
            "host_network": host_network,
            "caller_uid": facts.uid,
            "caller_gid": facts.gid,
            "ids": ids,
            "cgroups": [
                {"path": one.path, "version": one.version, "switch_on": one.switch_on} for one in facts.cgroups
            ],
        }
    )


def _id_source(facts: HostFacts, *, bare: bool) -> IdRange:
    """Without a user namespace to map ids in, only who may become another user has a range of them."""
    if not bare:
        return facts.ids
    return ROOT_RANGES if facts.switches_user else IdRange(kind="single")


def _workdir(spec: SandboxSpec, inputs: Inputs, default: str) -> str:
    """The first folder that is mounted somewhere else than where it is: one that is not is there for its files."""
    if spec.workdir is not None:
        return spec.workdir
    targets = [mount_path(mount) for mount in spec.files.mounts if mount.source is not None]
    for target, source in zip(targets, inputs.sources, strict=True):
        if source.kind == "folder" and (target != source.path or default == "/"):
            return target
    return default
