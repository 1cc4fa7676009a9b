"""What the API of Firecracker 1.12 takes and gives, after its definitions in src/firecracker/swagger/firecracker.yaml.

Paths are as the process of Firecracker sees them: in a jailer, inside its chroot. What is None is not sent, and
Firecracker's own default stands. An unknown key is refused in what is written; in what only Firecracker says a later
version may have said more.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Path = Annotated[str, Meta(pattern=r"^[^\0]*\Z", max_length=4095)]
#: As `ip link` shows it; Linux, net/if.h, IFNAMSIZ.
DeviceName = Annotated[str, Meta(pattern=r"^[^\0/\s:]{1,15}\Z")]
Mac = Annotated[str, Meta(pattern=r"^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\Z")]

State = Literal["Not started", "Running", "Paused"]


class Written(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of what is sent."""


class Said(Struct, frozen=True):
    """Base of what only Firecracker says."""


class TokenBucket(Written, frozen=True):
    """A bucket of `size` tokens that refills in `refill_time` milliseconds, after a first burst of its own."""

    size: Count
    refill_time: Count
    one_time_burst: Count | None = None


class RateLimiter(Written, frozen=True):
    """Bounds on the bytes (`bandwidth`) and on the operations (`ops`) of a device."""

    bandwidth: TokenBucket | None = None
    ops: TokenBucket | None = None


class BootSource(Written, frozen=True):
    """An ELF64 kernel, with its initramfs and arguments where it has any."""

    kernel_image_path: Path
    initrd_path: Path | None = None
    boot_args: str | None = None


class MachineConfiguration(Written, frozen=True):
    """Processors and memory. With `smt`, which only x86 has, the number of processors is 1 or even."""

    vcpu_count: Annotated[int, Meta(ge=1, le=32)]
    mem_size_mib: Annotated[int, Meta(ge=1, le=2**44)]
    smt: bool = False
    #: A ready-made template; superseded by `CpuConfig`.
    cpu_template: Literal["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"] | None = None
    #: Needed for snapshots of kind Diff.
    track_dirty_pages: bool = False
    huge_pages: Literal["None", "2M"] = "None"


class MachineUpdate(Written, frozen=True):
    """Of `MachineConfiguration` what is to change."""

    vcpu_count: Annotated[int, Meta(ge=1, le=32)] | None = None
    mem_size_mib: Annotated[int, Meta(ge=1, le=2**44)] | None = None
    smt: bool | None = None
    cpu_template: Literal["C3", "T2", "T2S", "T2CL", "T2A", "V1N1", "None"] | None = None
    track_dirty_pages: bool | None = None
    huge_pages: Literal["None", "2M"] | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in self.__struct_fields__):
            raise ValueError("nothing to change is named")


#: `0b` and for each bit 0, 1 or x, which leaves it as it is.
Bitmap = Annotated[str, Meta(pattern=r"^0b[01x_]{1,160}\Z")]
Number = Annotated[str, Meta(pattern=r"^0(x[0-9A-Fa-f]{1,16}|b[01]{1,64})\Z")]


class CpuidRegister(Written, frozen=True):
    """Bits of one register of a CPUID leaf."""

    register: Literal["eax", "ebx", "ecx", "edx"]
    bitmap: Bitmap


class CpuidLeaf(Written, frozen=True):
    """A leaf of CPUID that is to differ. x86-64."""

    leaf: Number
    subleaf: Number
    flags: Count
    modifiers: tuple[CpuidRegister, ...]


class Register(Written, frozen=True):
    """A model specific register (x86-64) or a register (aarch64) that is to differ."""

    addr: Number
    bitmap: Bitmap


class VcpuFeature(Written, frozen=True):
    """A word of the features that a processor is made with. aarch64."""

    index: Count
    bitmap: Bitmap


class CpuConfig(Written, frozen=True):
    """How the guest's processors differ from the host's. Firecracker, docs/cpu_templates/cpu-templates.md."""

    cpuid_modifiers: tuple[CpuidLeaf, ...] = ()
    msr_modifiers: tuple[Register, ...] = ()
    reg_modifiers: tuple[Register, ...] = ()
    vcpu_features: tuple[VcpuFeature, ...] = ()
    #: Numbers of what KVM must be able to do; with `!` before them, of what it need not.
    kvm_capabilities: tuple[Annotated[str, Meta(pattern=r"^!?[0-9]{1,10}\Z")], ...] = ()


class Drive(Written, frozen=True):
    """A block device: `path_on_host` and `is_read_only`, or the `socket` of a vhost-user server."""

    drive_id: Id
    is_root_device: bool
    path_on_host: Path | None = None
    is_read_only: bool | None = None
    partuuid: str | None = None
    #: Unsafe takes a flush for nothing; Writeback carries it out.
    cache_type: Literal["Unsafe", "Writeback"] | None = None
    rate_limiter: RateLimiter | None = None
    io_engine: Literal["Sync", "Async"] | None = None
    socket: Path | None = None

    def __post_init__(self) -> None:
        if (self.path_on_host is None) == (self.socket is None):
            raise ValueError("a drive has either `path_on_host` or `socket`")
        if self.path_on_host is not None and self.is_read_only is None:
            raise ValueError("a drive with `path_on_host` says whether it `is_read_only`")


class DriveUpdate(Written, frozen=True):
    """Another file behind a drive of a machine that runs, or other bounds. With neither, a socket is looked at anew."""

    drive_id: Id
    path_on_host: Path | None = None
    rate_limiter: RateLimiter | None = None


class NetworkInterface(Written, frozen=True):
    """A network device of the guest, on a TAP device of the host."""

    iface_id: Id
    host_dev_name: DeviceName
    guest_mac: Mac | None = None
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None


class NetworkUpdate(Written, frozen=True):
    """Other bounds on a network device of a machine that runs."""

    iface_id: Id
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None


class Vsock(Written, frozen=True):
    """The guest's vsock device. Firecracker listens at `uds_path`; what the guest connects to is `uds_path`_PORT."""

    guest_cid: Annotated[int, Meta(ge=3, le=2**32 - 1)]
    uds_path: Path
    #: Superseded, and without a meaning.
    vsock_id: str | None = None


class Balloon(Written, frozen=True):
    """Memory that the guest is to give back, in MiB. Statistics need an interval from the start."""

    amount_mib: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    deflate_on_oom: bool
    stats_polling_interval_s: Annotated[int, Meta(ge=0, le=65_535)] = 0


class BalloonUpdate(Written, frozen=True):
    """Another size of the balloon."""

    amount_mib: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class BalloonStatisticsUpdate(Written, frozen=True):
    """Another interval of the balloon's statistics, in seconds."""

    stats_polling_interval_s: Annotated[int, Meta(ge=0, le=65_535)]


class BalloonStatistics(Said, frozen=True):
    """What the guest's driver last said of its memory: pages of 4 KiB or MiB, as named; else bytes or a count."""

    target_pages: Count
    actual_pages: Count
    target_mib: Count
    actual_mib: Count
    swap_in: Count | None = None
    swap_out: Count | None = None
    major_faults: Count | None = None
    minor_faults: Count | None = None
    free_memory: Count | None = None
    total_memory: Count | None = None
    available_memory: Count | None = None
    disk_caches: Count | None = None
    hugetlb_allocations: Count | None = None
    hugetlb_failures: Count | None = None


class MmdsConfig(Written, frozen=True):
    """Which of the guest's network devices reach the metadata service, and where. V2 asks for a session's token."""

    network_interfaces: tuple[Id, ...]
    version: Literal["V1", "V2"] | None = None
    ipv4_address: Annotated[str, Meta(pattern=r"^169\.254(\.[0-9]{1,3}){2}\Z")] | None = None


class EntropyDevice(Written, frozen=True):
    """The guest's virtio-rng device."""

    rate_limiter: RateLimiter | None = None


class Logger(Written, frozen=True):
    """Where Firecracker's own log goes: a file or a named pipe that exists."""

    log_path: Path | None = None
    level: Literal["Error", "Warning", "Info", "Debug", "Trace", "Off"] | None = None
    show_level: bool | None = None
    show_log_origin: bool | None = None
    module: str | None = None


class Metrics(Written, frozen=True):
    """Where Firecracker's metrics go, an object of JSON a line: a file or a named pipe that exists."""

    metrics_path: Path


class Action(Written, frozen=True):
    """Something to do now."""

    action_type: Literal["InstanceStart", "SendCtrlAltDel", "FlushMetrics"]


class VmState(Written, frozen=True):
    """How the guest's processors are to be."""

    state: Literal["Paused", "Resumed"]


class SnapshotCreate(Written, frozen=True):
    """Files that a paused machine is written to. Diff has only the pages that changed since the last snapshot."""

    snapshot_path: Path
    mem_file_path: Path
    snapshot_type: Literal["Full", "Diff"] | None = None


class MemoryBackend(Written, frozen=True):
    """Where a guest's pages come from: a File, or a server of userfaultfd(2) that listens at a Unix socket (Uffd)."""

    backend_type: Literal["File", "Uffd"]
    backend_path: Path


class NetworkOverride(Written, frozen=True):
    """Another TAP device for a network device of a snapshot."""

    iface_id: Id
    host_dev_name: DeviceName


class SnapshotLoad(Written, frozen=True):
    """A snapshot to load. Its memory is named by `mem_backend`, or by `mem_file_path`, which is superseded."""

    snapshot_path: Path
    mem_backend: MemoryBackend | None = None
    mem_file_path: Path | None = None
    #: Whether changed pages are followed, for snapshots of kind Diff.
    enable_diff_snapshots: bool = False
    resume_vm: bool = False
    network_overrides: tuple[NetworkOverride, ...] = ()

    def __post_init__(self) -> None:
        if (self.mem_backend is None) == (self.mem_file_path is None):
            raise ValueError("a snapshot's memory is named by either `mem_backend` or `mem_file_path`")


class InstanceInfo(Said, frozen=True):
    """Which machine this is and how it is."""

    id: str
    state: State
    vmm_version: str
    app_name: str


class Version(Said, frozen=True):
    """Which Firecracker this is."""

    firecracker_version: str


class FullVmConfiguration(Said, frozen=True):
    """All that a machine was configured with. After a restore the boot source says what once was."""

    machine_config: MachineConfiguration | None = field(name="machine-config", default=None)
    boot_source: BootSource | None = field(name="boot-source", default=None)
    drives: tuple[Drive, ...] = ()
    network_interfaces: tuple[NetworkInterface, ...] = field(name="network-interfaces", default=())
    vsock: Vsock | None = None
    balloon: Balloon | None = None
    cpu_config: CpuConfig | None = field(name="cpu-config", default=None)
    mmds_config: MmdsConfig | None = field(name="mmds-config", default=None)
    entropy: EntropyDevice | None = None
    logger: Logger | None = None
    metrics: Metrics | None = None


class Fault(Said, frozen=True):
    """Why a call was refused."""

    fault_message: str = ""


#: What the metadata service says to the guest: an object of JSON.
Metadata = dict[str, Any]
