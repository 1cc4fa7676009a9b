"""A plan, what it is compiled from, and what all plans share. Pure."""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from immure.errors import SpecError
from immure.host.facts import HostFacts, ImageFolder, KvmFacts, MachineFacts, Missing, ProgramFacts, SourceFacts
from immure.plan.filters import BoxFilters, asking_filters, compile_filters
from immure.plan.operations import CgroupLimit, CommandStage, Landlock, RootOp, TemplateOp
from immure.plan.report import Clause
from immure.policy import capabilities, landlock
from immure.policy.seccomp import Profile
from immure.spec.models import Level, SandboxSpec

#: CLONE_NEW* by the names of the clauses.
NAMESPACES = {
    "mount": 0x0002_0000,
    "cgroup": 0x0200_0000,
    "uts": 0x0400_0000,
    "ipc": 0x0800_0000,
    "user": 0x1000_0000,
    "pid": 0x2000_0000,
    "net": 0x4000_0000,
}
BARE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
}
BASE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
}


class Inputs(Struct, frozen=True):
    """What was read for the spec: its mounts' sources in order, its seccomp profile, and its image where it has one.

    `filters` are the profile's for this host and for what the spec keeps, where they are compiled already.
    """

    sources: tuple[SourceFacts, ...]
    profile: Profile | None
    filters: BoxFilters | None = None
    hostname: str = "immure"
    #: gVisor's program, or why there is none; None where nobody looked for it.
    runsc: ProgramFacts | Missing | None = None
    #: How KVM behaves; None where nobody tried it.
    kvm: KvmFacts | None = None
    #: What a machine is made with, or why it can't be; None where nobody looked for it.
    machine: MachineFacts | Missing | None = None
    #: The filters around a program of ours that carries a box: a preset's, for this host.
    around: BoxFilters | None = None
    #: The native program as a path of this host, for boxes that execute it within.
    init: str = ""
    #: None for `image: host`.
    image: ImageFolder | None = None
    #: A supervisor answers the calls of the box's command, and sees them all.
    learning: bool = False


class Plan(Struct, frozen=True):
    """Everything that will be done for a box, in order, and what the user gets for each clause."""

    namespaces: int
    bare: bool
    spare_network: bool
    user: int
    group: int
    template: tuple[TemplateOp, ...]
    root: tuple[RootOp, ...]
    landlock: Landlock | None
    command: CommandStage
    cgroup: tuple[CgroupLimit, ...]
    report: tuple[Clause, ...]
    level: Level
    default_deny: bool
    host_sha256: str
    #: The filter by which a supervisor is to answer, where one is asked.
    decides: bytes | None = None
    #: The stem makes terminals out of the box's own devpts.
    terminals: bool = False
    runtime: str = "process"
    #: What is started in the box to carry another kernel, and the configuration of our init within that.
    carrier: tuple[str, ...] = ()
    guest: bytes = b""
    #: Mounts that a machine writes to: source, number, place in the box, and the most that may be written, in MiB.
    changes: tuple[tuple[str, int, str, int], ...] = ()
    #: What a machine goes on from that is given to its carrier as descriptors.
    booted: tuple[str, ...] = ()
    #: A machine's own disk: bytes, the folder of its file, and what formats it.
    disk: tuple[int, str, str] | None = None
    #: What the image is made of beside its operations: which folder bears the name now.
    image: object = None
    #: What the readback must show, where it is not what a process box shows.
    expects: dict[str, object] = {}

    def describe(self) -> list[str]:
        """What will be done, a line a step, for `--dry-run`."""
        made = [name for name, flag in NAMESPACES.items() if self.namespaces & flag]
        if self.spare_network:
            made.append("net (made ahead)")
        lines = [f"namespaces {' '.join(made) or 'none'}"]
        lines += [f"image: {op.describe()}" for op in self.template]
        lines += [limit.describe() for limit in self.cgroup]
        lines += [f"box: {op.describe()}" for op in self.root]
        if self.landlock is not None:
            lines += [f"landlock: {rule.path} {landlock.Fs(rule.access)!r}" for rule in self.landlock.rules]
        lines.append(f"command: keep capabilities {self.command.keep_capabilities:#x}, no_new_privs")
        lines += [f"command: seccomp filter of {len(one) // 8} instructions" for one in self.command.filters]
        if self.carrier:
            lines.append(f"start {' '.join(self.carrier)}")
        return lines

    def wire(self) -> bytes:
        """The form that the native program reads."""
        try:
            return self._encode()
        except UnicodeEncodeError as error:
            raise SpecError(
                "a path or name is no text",
                path="$.spec",
                need="UTF-8",
                have=ascii(error.object),
                hint="rename it, or mount the folder above",
            ) from error

    def _encode(self) -> bytes:
        key = hashlib.sha256(msgspec.msgpack.encode((self.template, self.image))).digest()
        return msgspec.msgpack.encode(
            {
                "namespaces": self.namespaces,
                "bare": self.bare,
                "spare_network": self.spare_network,
                "user": self.user,
                "group": self.group,
                "template_key": key,
                "template": self.template,
                "root": self.root,
                "landlock": self.landlock,
                "command": self.command,
                "cgroup": self.cgroup,
            }
        )


def box_filters(facts: HostFacts, inputs: Inputs, keep: int) -> BoxFilters:
    """The filters of a box's commands, compiled already or now."""
    filters = inputs.filters
    if filters is None:
        assert inputs.profile is not None
        filters = compile_filters(inputs.profile, arch=facts.arch, kernel=facts.kernel, keep=keep)
    return asking_filters(filters, arch=facts.arch, kernel=facts.kernel) if inputs.learning else filters


def kept_capabilities(spec: SandboxSpec, facts: HostFacts) -> int:
    """The capabilities that commands keep, as a set of bits. Raises SpecError for names that there are not."""
    return capabilities.resolve(
        spec.processes.capabilities.add,
        spec.processes.capabilities.drop,
        last=facts.last_capability,
        path="$.spec.processes.capabilities",
    )


def host_sha256(facts: HostFacts) -> str:
    """What the facts of a host are known by."""
    return hashlib.sha256(msgspec.msgpack.encode(facts)).hexdigest()
