"""The specification of a sandbox as frozen, strict models.

Every field that is None was not written: its default is decided when the plan is compiled, and a default that
this host can't enforce is reported rather than refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field


class Level(StrEnum):
    """A degree of isolation. Levels compare in their order.

    L1: a default-deny system call filter, and no privileges. L2: also Landlock, namespaces of its own, and no id that
    is the host's root. L3: also a kernel in user space. L4: also a kernel of its own behind hardware virtualisation.
    """

    L0 = "L0"
    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"


Access = Literal["ro", "rw", "review"]
Need = Literal["required", "best_effort"]

#: Protections that `SandboxSpec.protections` can opt down, one by one.
PROTECTIONS = ("landlock", "namespaces", "memory", "cpus", "pids")

Positive = Annotated[int, Meta(ge=1)]
Id = Annotated[int, Meta(ge=0, le=65_535)]
VariableName = Annotated[str, Meta(pattern=r"^[^=]+\Z")]
AbsolutePath = Annotated[str, Meta(pattern=r"^/")]
#: `host`, or a path that can't be mistaken for a name: with a slash in it, or a . or ~ at its start.
IMAGE_FORM = r"^(host\Z|[.~]|[^/]*/)"


class Mount(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A folder or file of the host in the box (`source` and `target`), or new memory-backed space (`tmpfs`)."""

    source: str | None = None
    target: AbsolutePath | None = None
    access: Access = "ro"
    tmpfs: AbsolutePath | None = None
    size_mib: Positive | None = None

    def __post_init__(self) -> None:
        if self.tmpfs is not None:
            if self.source is not None or self.target is not None or self.access != "ro":
                raise ValueError("a tmpfs mount takes `tmpfs` and `size_mib` alone")
        elif self.source is None or self.target is None:
            raise ValueError("a mount needs `source` and `target`, or `tmpfs`")
        elif self.size_mib is not None:
            raise ValueError("`size_mib` is for tmpfs mounts")


class Syscalls(Struct, frozen=True, forbid_unknown_fields=True):
    """The system call filter: a preset's name, a path to an OCI seccomp profile, or the profile itself.

    A name that is a preset's is the preset; a file of that name is written `./name`.
    """

    profile: str | dict[str, Any] = "default"


class Files(Struct, frozen=True, forbid_unknown_fields=True):
    """File control: what is mounted, and whether Landlock rules are derived from it."""

    mounts: tuple[Mount, ...] = ()
    landlock: Literal["auto", "off"] = "auto"


class Network(Struct, frozen=True, forbid_unknown_fields=True):
    """`none` is a network of the box's own with nothing but `lo`; `host` caps the level at L1."""

    mode: Literal["none", "host"] = "none"


class Capabilities(Struct, frozen=True, forbid_unknown_fields=True):
    """Capabilities in the box's own user namespace, named without `CAP_`. ALL is dropped before `add` applies."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ("ALL",)


class Processes(Struct, frozen=True, forbid_unknown_fields=True):
    """Who commands are in the box, and what they may become."""

    user: Id = 1000
    capabilities: Capabilities = Capabilities()
    namespaces: Literal["all", "none"] = "all"
    no_new_privileges: Literal[True] = True


class GVisor(Struct, frozen=True, forbid_unknown_fields=True):
    """How gVisor intercepts system calls: `systrap`, `ptrace` (slow), or `kvm` where virtualisation is hardware's."""

    platform: Literal["systrap", "ptrace", "kvm"] = "systrap"


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Resource limits. A limit that is written is required; None is the default, on a best-effort basis."""

    memory_mib: Annotated[int, Meta(ge=4, le=16_777_216)] | None = None
    cpus: Annotated[float, Meta(ge=0.01, le=4096)] | None = None
    pids: Annotated[int, Meta(ge=1, le=4_194_304)] | None = None
    disk_mib: Annotated[int, Meta(ge=1, le=16_777_216)] | None = None
    timeout_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    output_mib: Annotated[float, Meta(gt=0, le=1_048_576)] | None = None


class SandboxSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """What a box must be: its system call filter, files, network and processes, with limits. Frozen, and strict."""

    level: Level = Level.L2
    runtime: Literal["auto", "process", "gvisor", "qemu", "firecracker"] = "auto"
    image: Annotated[str, Meta(pattern=IMAGE_FORM)] = "host"
    command: tuple[str, ...] = ()
    env: dict[VariableName, str] = field(default_factory=dict[str, str])
    workdir: AbsolutePath | None = None
    syscalls: Syscalls = Syscalls()
    files: Files = Files()
    network: Network = Network()
    processes: Processes = Processes()
    limits: Limits = Limits()
    gvisor: GVisor = GVisor()
    protections: dict[Literal["landlock", "namespaces", "memory", "cpus", "pids"], Need] = field(
        default_factory=dict[Any, Need]
    )


class Metadata(Struct, frozen=True, forbid_unknown_fields=True):
    """`name` becomes the host name in the box."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")] = "immure"


class Document(Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A file with one sandbox in it."""

    api_version: Literal["immure.dev/v1"]
    kind: Literal["Sandbox"]
    metadata: Metadata = Metadata()
    spec: SandboxSpec = SandboxSpec()
