"""What the `/vms` API takes and gives. Bodies that are Firecracker's own are in `runtimes/firecracker/models.py`.

Paths are this host's. An unknown key is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from immure.errors import SpecError
from immure.runtimes.firecracker import models

#: What a machine's name may be: it becomes a folder's, and Firecracker takes no more.
VM_ID = r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z"

#: Silent: its VMM runs and does not answer. Busy: somebody's call is under way.
VmState = Literal["Not started", "Running", "Paused", "Ended", "Silent", "Busy"]


class MachineBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine. Without `vcpu_count` and `mem_size_mib`, which belong together, it can be given a snapshot."""

    vcpu_count: Annotated[int, Meta(ge=1, le=32)] | None = None
    mem_size_mib: Annotated[int, Meta(ge=1, le=2**44)] | None = None
    smt: bool | None = None
    #: What `smt` was called once.
    ht_enabled: bool | None = None
    cpu_template: Literal["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"] | None = None
    track_dirty_pages: bool = False
    huge_pages: Literal["None", "2M"] = "None"

    def configuration(self) -> models.MachineConfiguration | None:
        """As Firecracker takes it; None where nothing is configured. Raises SpecError."""
        smt = one_smt(self.smt, self.ht_enabled)
        if self.vcpu_count is None and self.mem_size_mib is None:
            if self != MachineBody():
                raise SpecError("a machine has a size", need="vcpu_count and mem_size_mib", have="neither")
            return None
        if self.vcpu_count is None or self.mem_size_mib is None:
            have = "vcpu_count alone" if self.mem_size_mib is None else "mem_size_mib alone"
            raise SpecError("a machine has a size", need="vcpu_count and mem_size_mib", have=have)
        return models.MachineConfiguration(
            self.vcpu_count,
            self.mem_size_mib,
            bool(smt),
            self.cpu_template,
            self.track_dirty_pages,
            self.huge_pages,
        )


class NetworkBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A network device of the guest, on a TAP device of this host; without a name, one is made for it."""

    iface_id: models.Id
    host_dev_name: models.DeviceName | None = None
    guest_mac: models.Mac | None = None
    rx_rate_limiter: models.RateLimiter | None = None
    tx_rate_limiter: models.RateLimiter | None = None

    def on(self, device: str) -> models.NetworkInterface:
        """As Firecracker takes it."""
        return models.NetworkInterface(
            self.iface_id, device, self.guest_mac, self.rx_rate_limiter, self.tx_rate_limiter
        )


class MachinePatch(Struct, frozen=True, forbid_unknown_fields=True):
    """Either `state`, of a machine that has started, or what is to change of one that has not."""

    state: Literal["Paused", "Resumed"] | None = None
    vcpu_count: Annotated[int, Meta(ge=1, le=32)] | None = None
    mem_size_mib: Annotated[int, Meta(ge=1, le=2**44)] | None = None
    smt: bool | None = None
    ht_enabled: bool | None = None
    cpu_template: Literal["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"] | None = None
    track_dirty_pages: bool | None = None
    huge_pages: Literal["None", "2M"] | None = None

    def update(self) -> models.MachineUpdate | None:
        """As Firecracker takes it; None where only a state is named. Raises SpecError."""
        smt = one_smt(self.smt, self.ht_enabled)
        sizes = (self.vcpu_count, self.mem_size_mib, smt, self.cpu_template, self.track_dirty_pages, self.huge_pages)
        named = any(value is not None for value in sizes)
        if named == (self.state is not None):
            have = "both" if named else "neither"
            raise SpecError(
                "one change at a time", need="a state, or what is to change of the configuration", have=have
            )
        return models.MachineUpdate(*sizes) if named else None


def one_smt(smt: bool | None, ht_enabled: bool | None) -> bool | None:
    """Raises SpecError where both names are used and say different things."""
    if smt is not None and ht_enabled is not None and smt != ht_enabled:
        raise SpecError(
            "smt and ht_enabled contradict each other",
            path="$.ht_enabled",
            need="the same value, or smt alone",
            have=f"smt {str(smt).lower()}, ht_enabled {str(ht_enabled).lower()}",
            hint="leave ht_enabled out: it is what smt was called once",
        )
    return ht_enabled if smt is None else smt


class VsockBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The guest's vsock device. `uds_path` is a name in the machine's own folder; where that is says `GET`."""

    guest_cid: Annotated[int, Meta(ge=3, le=2**32 - 1)]
    uds_path: Annotated[str, Meta(pattern=r"^(\./)?[A-Za-z0-9][A-Za-z0-9._-]{0,31}\Z")] = "v.sock"
    vsock_id: str | None = None


class SnapshotDrive(Struct, frozen=True, forbid_unknown_fields=True):
    """The file behind a drive that a snapshot's machine has."""

    drive_id: models.Id
    path_on_host: models.Path
    is_read_only: bool


class SnapshotLoadBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Firecracker's own, with the files behind the machine's drives, which a snapshot does not hold."""

    snapshot_path: models.Path
    mem_backend: models.MemoryBackend | None = None
    mem_file_path: models.Path | None = None
    enable_diff_snapshots: bool = False
    resume_vm: bool = False
    network_overrides: tuple[models.NetworkOverride, ...] = ()
    drives: tuple[SnapshotDrive, ...] = ()

    def memory(self) -> str:
        """The file with the memory. Raises SpecError."""
        if (self.mem_backend is None) == (self.mem_file_path is None):
            raise SpecError("a snapshot has one memory", need="mem_backend, or mem_file_path", have="both or neither")
        if self.mem_backend is None:
            return self.mem_file_path or ""
        if self.mem_backend.backend_type != "File":
            raise SpecError(
                "memory comes from a file here",
                path="$.mem_backend.backend_type",
                need="File",
                have=self.mem_backend.backend_type,
            )
        return self.mem_backend.backend_path


class Error(Struct, frozen=True):
    """What went wrong, what was needed, what was there, and what to do."""

    code: str
    message: str
    need: str | None = None
    have: str | None = None
    hint: str | None = None


class ErrorDocument(Struct, frozen=True, rename={"schema_": "schema"}):
    """Every answer that is no success."""

    error: Error
    schema_: Literal["immure.error/v1"] = "immure.error/v1"


class Bounds(Struct, frozen=True):
    """What the host's kernel bounds a machine's VMM to, read back from its cgroups. None where this host has none."""

    #: The guest's and 64 MiB.
    memory_bytes: int | None
    processes: int | None


class Vm(Struct, frozen=True):
    """A machine as it is."""

    vm_id: str
    state: VmState
    #: The exit status of its VMM, once that has ended: 0 at the guest's own end, 128 and a signal's number if killed.
    status: int | None
    #: The user of this host that its VMM is, and nobody else.
    user: int | None
    pid: int | None
    #: None once its VMM has ended.
    bounds: Bounds | None
    #: Where a snapshot's machine was configured, this is empty.
    machine_config: models.MachineConfiguration | None
    boot_source: models.BootSource | None
    drives: tuple[models.Drive, ...]
    networks: tuple[models.NetworkInterface, ...]
    vsock: models.Vsock | None
    #: How much the guest has said on its serial line.
    console_bytes: int


class VmDocument(Vm, frozen=True, rename={"schema_": "schema"}):
    """One machine."""

    schema_: Literal["immure.vm/v1"] = "immure.vm/v1"
    error: None = None


class VmsDocument(Struct, frozen=True, rename={"schema_": "schema"}):
    """All machines, by their names."""

    vms: tuple[Vm, ...]
    schema_: Literal["immure.vms/v1"] = "immure.vms/v1"
    error: None = None


class MetricsDocument(Struct, frozen=True, rename={"schema_": "schema"}):
    """Firecracker's own counters, since it last said them: once a minute, and when they are asked for."""

    metrics: dict[str, Any]
    schema_: Literal["immure.vm-metrics/v1"] = "immure.vm-metrics/v1"
    error: None = None
