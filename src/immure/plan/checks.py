"""What a spec may ask of a level, and what a host must have for any box. Pure."""

from __future__ import annotations

from immure.errors import ProtectionUnavailable, RuntimeUnavailable, SpecError
from immure.host.facts import OWN_ID_IS_ROOT, HostFacts, KvmFacts, Missing
from immure.spec.models import Level, SandboxSpec

#: The highest level that each runtime reaches.
REACHES = {"process": Level.L2, "gvisor": Level.L3, "qemu": Level.L4, "firecracker": Level.L4}


def check_level(spec: SandboxSpec, runtime: str) -> None:
    """Raises RuntimeUnavailable for a level that the runtime does not reach, and SpecError for what caps it below."""
    if spec.level > REACHES[runtime]:
        raise RuntimeUnavailable(
            f"no runtime on this host reaches {spec.level}"
            if spec.runtime == "auto"
            else f"the runtime {runtime} does not reach {spec.level}",
            need="a virtual machine" if spec.level > Level.L3 else "a user-space kernel or a virtual machine",
            have=f"the runtime {runtime}, which reaches {REACHES[runtime]}",
            hint=f"ask for {REACHES[runtime]}" if spec.level > Level.L3 else "leave runtime out",
        )
    if spec.level >= Level.L2:
        _refuse(spec, spec.network.mode == "host", "$.spec.network.mode", "none", "host")
        _refuse(spec, spec.files.landlock == "off", "$.spec.files.landlock", "auto", "off")
        _refuse(spec, spec.processes.namespaces == "none", "$.spec.processes.namespaces", "all", "none")
    if any(mount.access == "review" for mount in spec.files.mounts):
        raise SpecError(
            "review mounts can't be made by this runtime",
            path="$.spec.files.mounts",
            need="access ro or rw",
            have="review",
        )


def _refuse(spec: SandboxSpec, refused: bool, path: str, need: str, have: str) -> None:
    if refused:
        raise SpecError(
            f"caps the level at L1, but {spec.level} is asked for",
            path=path,
            need=need,
            have=have,
            hint="set level: L1",
        )


def check_hardware(kvm: KvmFacts | None, what: str, hint: str) -> None:
    """Raises RuntimeUnavailable, which `what` begins, where KVM does not have the processor's help."""
    if kvm is not None and kvm.kind == "hardware":
        return
    missing = kvm.missing if kvm is not None else None
    raise RuntimeUnavailable(
        what,
        need=missing.need if missing is not None else "hardware virtualisation",
        have=missing.have if missing is not None else "none that was tried",
        hint=hint,
    )


def check_host(spec: SandboxSpec, facts: HostFacts, *, bare: bool) -> None:
    """Raises ProtectionUnavailable for what this host must have for any box, and lacks."""
    needs: list[tuple[str, Missing | None]] = [("evidence", facts.ptrace)]
    if bare and facts.uid == facts.host_root_id and not facts.switches_user:
        needs.append(("processes.user", OWN_ID_IS_ROOT))
    if not bare:
        needs += [
            ("processes.namespaces", facts.user_namespaces),
            ("processes.namespaces (a new /proc)", facts.new_proc),
        ]
    if not bare and facts.own_id_is_host_root:
        needs.append(("processes.user", OWN_ID_IS_ROOT))
    for name, missing in needs:
        if missing is not None:
            hint = missing.command or ""
            if name != "evidence":
                hint += "; or ask for level L1 with --best-effort namespaces"
            raise ProtectionUnavailable(name, need=missing.need, have=missing.have, hint=hint.lstrip("; ") or None)
    if not facts.seccomp:
        raise ProtectionUnavailable(
            "syscalls", need="a kernel with CONFIG_SECCOMP_FILTER", have="none", hint="use another kernel"
        )
