"""From a spec to a launch on this host: reads what the pure compiler needs, and remembers what it made."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from immure.engine import cache
from immure.engine.filters import kept_filters, preset_filters
from immure.engine.kvm import kvm_facts
from immure.engine.sources import look_at_image, look_at_sources
from immure.errors import SpecError
from immure.host.facts import HostFacts, ImageFolder, KvmFacts, MachineFacts, Missing, ProgramFacts, SourceFacts
from immure.host.native import native_path
from immure.host.probe import probe
from immure.host.runsc import find_runsc
from immure.plan.compile import compile_plan, runtime_of
from immure.plan.filters import BoxFilters
from immure.plan.launch import MACHINES, Launch
from immure.plan.launching import make_launch
from immure.plan.model import Inputs, Plan, kept_capabilities
from immure.policy.seccomp import (
    PRESETS,
    Presets,
    Profile,
    load_preset,
    nearest_preset,
    parse_profile,
    preset_text,
)
from immure.policy.seccomp.formats import read_named
from immure.spec.models import Level, SandboxSpec

#: Of the box around a machine.
_AROUND = "default"

_facts: dict[str, HostFacts] = {}
_launches: dict[str, Launch] = {}
_host_keys: dict[tuple[int, int], str] = {}


def host_facts() -> HostFacts:
    """This host's facts, tried out once per boot. What was refused is tried again every time."""
    key = "facts-" + _host_key()
    facts = _facts.get(key) or _stored_facts(key)
    if facts is None:
        facts = probe()
        if not (facts.user_namespaces or facts.new_proc or facts.ptrace):
            cache.store(key, msgspec.msgpack.encode(facts))
    _facts[key] = facts
    return facts


def _stored_facts(key: str) -> HostFacts | None:
    content = cache.load(key)
    if not isinstance(content, bytes):
        return None
    try:
        return msgspec.msgpack.decode(content, type=HostFacts)
    except msgspec.DecodeError:
        return None


def prepare(spec: SandboxSpec, *, base: Path, hostname: str = "immure", learning: bool = False) -> Launch:
    """The launch of a spec whose relative paths start at `base`. Remembered by content within this process.

    In learning a supervisor answers the command's calls.

    Raises SpecError, ProtectionUnavailable or RuntimeUnavailable.
    """
    spec = _with_runtime(spec)
    sources, profile = look_at_sources(spec, base), _profile_text(spec, base)
    image, runsc, kvm = look_at_image(spec, base), _runsc(spec), _kvm(spec)
    machine = _machine(spec, image, sources, kvm)
    # As marshal writes it, since a variable's value may be no text.
    read = msgspec.to_builtins((spec, sources, image, runsc, kvm, machine), enc_hook=str)
    key = cache.key_of(_host_key(), read, profile, hostname, learning)
    launch = _launches.get(key)
    if launch is None:
        facts = host_facts()
        filters = _filters(profile, spec, base, facts)
        inputs = Inputs(
            sources=sources,
            profile=None,
            filters=filters,
            hostname=hostname,
            runsc=runsc,
            kvm=kvm,
            machine=machine,
            around=_around(spec, facts),
            init=native_path(),
            learning=learning,
            image=image,
        )
        plan = compile_plan(spec, facts, inputs)
        ready = _made_ready(spec, facts, inputs)
        if ready is not inputs:
            # Found by another key from now on.
            return make_launch(compile_plan(spec, facts, ready), spec, facts, ready)
        launch = make_launch(plan, spec, facts, inputs)
        _launches[key] = launch
    return launch


def _made_ready(spec: SandboxSpec, facts: HostFacts, inputs: Inputs) -> Inputs:
    """What its box needs and takes longer, once its plan is known to be one."""
    if inputs.machine is None:
        return inputs
    from immure.engine.machines import make_ready

    return make_ready(spec, facts, inputs)


def plan_of(spec: SandboxSpec, *, base: Path, hostname: str = "immure") -> Plan:
    """The plan alone, for `--dry-run`."""
    spec = _with_runtime(spec)
    return compile_plan(spec, host_facts(), read_inputs(spec, base=base, hostname=hostname))


def _with_runtime(spec: SandboxSpec) -> SandboxSpec:
    """With a runtime where which one it is depends on what this host has."""
    if spec.runtime != "auto" or runtime_of(spec) not in MACHINES:
        return spec
    from immure.engine.machines import usual_vmm

    return msgspec.structs.replace(spec, runtime=usual_vmm())


def read_inputs(spec: SandboxSpec, *, base: Path, hostname: str) -> Inputs:
    """Looks at the mounts' sources and the image, and reads the seccomp profile."""
    image, sources = look_at_image(spec, base), look_at_sources(spec, base)
    return Inputs(
        sources=sources,
        profile=profile_of(spec, base=base),
        hostname=hostname,
        image=image,
        machine=_machine(spec, image, sources, _kvm(spec)),
        around=_around(spec, host_facts()),
        runsc=_runsc(spec),
        kvm=_kvm(spec),
        init=native_path(),
    )


def _runsc(spec: SandboxSpec) -> ProgramFacts | Missing | None:
    """gVisor's program, looked for where it is needed."""
    return find_runsc() if runtime_of(spec) == "gvisor" else None


def _machine(
    spec: SandboxSpec, image: ImageFolder | None, sources: tuple[SourceFacts, ...], kvm: KvmFacts | None
) -> MachineFacts | Missing | None:
    """What a machine is made with, made ready where it is needed and can be of use."""
    if runtime_of(spec) not in MACHINES or (spec.level >= Level.L4 and (kvm is None or kvm.kind != "hardware")):
        return None
    from immure.engine.machines import look_at_machine

    return look_at_machine(spec, host_facts(), image, sources)


def _around(spec: SandboxSpec, facts: HostFacts) -> BoxFilters | None:
    """The filters of a box around a machine: those of any box."""
    if runtime_of(spec) not in MACHINES:
        return None
    preset = preset_filters(_AROUND, arch=facts.arch, kernel=facts.kernel, keep=0)
    if preset is not None:
        return preset
    return kept_filters(
        preset_text(_AROUND), lambda: load_preset(_AROUND), arch=facts.arch, kernel=facts.kernel, keep=0
    )


def _kvm(spec: SandboxSpec) -> KvmFacts | None:
    """How KVM behaves, tried where it is needed."""
    runtime = runtime_of(spec)
    wanted = runtime in MACHINES or (runtime == "gvisor" and spec.gvisor.platform == "kvm")
    return kvm_facts() if wanted else None


def _filters(text: bytes | None, spec: SandboxSpec, base: Path, facts: HostFacts) -> BoxFilters:
    keep, kernel = kept_capabilities(spec, facts), facts.kernel
    preset = spec.syscalls.profile
    shipped = None
    if text is None and isinstance(preset, str):
        text = preset_text(preset)
        shipped = preset_filters(preset, arch=facts.arch, kernel=kernel, keep=keep)
    if shipped is not None:
        return shipped
    assert text is not None
    return kept_filters(text, lambda: profile_of(spec, base=base), arch=facts.arch, kernel=kernel, keep=keep)


def profile_of(spec: SandboxSpec, *, base: Path) -> Profile:
    """The seccomp profile that a spec names or holds."""
    return _parse(_profile_text(spec, base), spec, base)


def _host_key() -> str:
    """What this process's facts are keyed by; looked at once for each user that it is."""
    user = (os.getpid(), os.geteuid())
    if user not in _host_keys:
        _host_keys[user] = cache.key_of(cache.host_key())
    return _host_keys[user]


def _profile_text(spec: SandboxSpec, base: Path) -> bytes | None:
    """The profile as it was written; None for a preset, which the spec names and which doesn't change."""
    wanted = spec.syscalls.profile
    if wanted in PRESETS:
        return None
    if not isinstance(wanted, str):
        return msgspec.json.encode(wanted)
    path = base / Path(wanted).expanduser()
    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(
            f"the seccomp profile {path} can't be read",
            path="$.spec.syscalls.profile",
            need=f"a preset ({', '.join(PRESETS)}), an OCI profile, or a path to one",
            have=error.strerror,
            hint=None if path.suffix else nearest_preset(path.name),
        ) from error


def _parse(text: bytes | None, spec: SandboxSpec, base: Path) -> Profile:
    wanted = spec.syscalls.profile
    if text is None:
        assert isinstance(wanted, str)
        return load_preset(wanted)
    if not isinstance(wanted, str):
        return parse_profile(text, source="$.spec.syscalls.profile")
    return read_named(text, name=str(base / Path(wanted).expanduser()), bases=Presets())
