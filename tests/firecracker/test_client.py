"""The client, each call of it at least once with a real Firecracker and a guest that runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immure.errors import BoxLost, SpecError, VmmRefused, WrongState
from immure.runtimes.firecracker import models
from immure.runtimes.firecracker.client import Client, at
from immure.runtimes.firecracker.models import (
    Balloon,
    BalloonStatisticsUpdate,
    BalloonUpdate,
    BootSource,
    CpuConfig,
    CpuidLeaf,
    CpuidRegister,
    Drive,
    DriveUpdate,
    EntropyDevice,
    Logger,
    MachineConfiguration,
    MachineUpdate,
    MemoryBackend,
    Metrics,
    MmdsConfig,
    NetworkInterface,
    NetworkUpdate,
    RateLimiter,
    SnapshotCreate,
    SnapshotLoad,
    TokenBucket,
    Vsock,
)

from .guests import HELLO
from .vmms import Vmm, until

Make = Callable[..., Vmm]
SLOW = RateLimiter(bandwidth=TokenBucket(1 << 20, 1000, 1 << 16), ops=TokenBucket(1000, 1000))
SMALL = MachineConfiguration(1, 32, track_dirty_pages=True)


@pytest.fixture
def tap() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("needs uid 0")
    name = f"imt{os.getpid() % 100_000}"
    subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"], check=True)
    try:
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


def started(vmm: Vmm, kernel: Path, machine: MachineConfiguration = SMALL) -> Client:
    client = vmm.client
    client.set_machine(machine)
    client.set_boot_source(BootSource(str(kernel)))
    client.start()
    vmm.says(HELLO)
    return client


def test_a_guest_runs_to_its_end(vmm: Make, kernels: Path) -> None:
    machine = vmm()
    assert machine.client.version() == "1.12.1"
    assert machine.client.describe().state == "Not started"
    started(machine, kernels / "ends")
    assert machine.ended() == 0
    with pytest.raises(BoxLost, match="no answer to GET /"):
        machine.client.describe()


def test_all_that_is_configured_before_a_start(vmm: Make, kernels: Path, tmp_path: Path, tap: str) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    machine = vmm()
    for name in ("log", "metrics"):
        (tmp_path / name).touch()
    client = machine.client
    client.set_logger(Logger(str(tmp_path / "log"), level="Info", show_level=True, show_log_origin=True))
    client.set_metrics(Metrics(str(tmp_path / "metrics")))
    client.set_machine(MachineConfiguration(2, 64))
    client.change_machine(MachineUpdate(vcpu_count=1, track_dirty_pages=True))
    assert client.machine() == MachineConfiguration(1, 64, track_dirty_pages=True)
    client.set_boot_source(BootSource(str(kernels / "counts"), boot_args="console=ttyS0"))
    client.set_drive(Drive("root", True, str(disk), False, cache_type="Writeback", rate_limiter=SLOW, io_engine="Sync"))
    client.set_network(NetworkInterface("eth0", tap, "AA:FC:00:00:00:01", rx_rate_limiter=SLOW, tx_rate_limiter=SLOW))
    client.set_vsock(Vsock(3, str(tmp_path / "v.sock")))
    client.set_balloon(Balloon(0, True, 1))
    client.set_entropy(EntropyDevice(SLOW))
    client.set_metadata_service(MmdsConfig(("eth0",), "V2", "169.254.170.2"))
    client.set_metadata({"latest": {"a": 1, "b": 2}})
    client.change_metadata({"latest": {"b": None}})
    assert client.metadata() == {"latest": {"a": 1}}

    whole = client.configuration()
    assert whole.boot_source == BootSource(str(kernels / "counts"), boot_args="console=ttyS0")
    assert whole.machine_config == client.machine()
    assert [one.drive_id for one in whole.drives] == ["root"]
    assert whole.drives[0].rate_limiter == SLOW
    assert whole.network_interfaces[0].host_dev_name == tap
    assert whole.vsock == Vsock(3, str(tmp_path / "v.sock"))
    assert whole.balloon == client.balloon() == Balloon(0, True, 1)
    assert whole.entropy == EntropyDevice(SLOW)
    assert whole.mmds_config == MmdsConfig(("eth0",), "V2", "169.254.170.2")

    client.start()
    machine.says(HELLO)
    assert client.describe().state == "Running"
    client.change_drive(DriveUpdate("root", path_on_host=str(disk), rate_limiter=SLOW))
    client.change_network(NetworkUpdate("eth0", rx_rate_limiter=SLOW))
    client.change_metadata({"more": True})
    assert client.metadata() == {"latest": {"a": 1}, "more": True}
    client.flush_metrics()
    until("line of metrics", lambda: (tmp_path / "metrics").read_bytes().count(b"\n"))
    line = json.loads((tmp_path / "metrics").read_bytes().splitlines()[0])
    assert line["put_api_requests"]["machine_cfg_count"] == 1
    client.send_ctrl_alt_del()
    assert b"The request was executed successfully" in (tmp_path / "log").read_bytes()


def test_a_balloon_needs_the_guest_s_driver(vmm: Make, kernels: Path) -> None:
    machine = vmm()
    machine.client.set_balloon(Balloon(0, True, 1))
    client = started(machine, kernels / "rests")
    with pytest.raises(VmmRefused, match="Device not activated yet") as refused:
        client.change_balloon(BalloonUpdate(8))
    assert refused.value.status == 400
    assert client.balloon_statistics().actual_mib == 0
    client.change_balloon_statistics(BalloonStatisticsUpdate(1))
    with pytest.raises(VmmRefused, match="statistics"):
        client.change_balloon_statistics(BalloonStatisticsUpdate(0))


def test_processors_that_differ(vmm: Make, kernels: Path) -> None:
    machine = vmm()
    leaf = CpuidLeaf("0x80000002", "0x0", 0, (CpuidRegister("eax", "0b" + "0" * 32),))
    machine.client.set_cpu(CpuConfig(cpuid_modifiers=(leaf,)))
    started(machine, kernels / "rests")
    # Which processors a ready-made template is for is Firecracker's to say: T2A is for none that has T2's.
    for template in ("T2", "T2A"):
        machine = vmm(template)
        machine.client.set_machine(MachineConfiguration(1, 32, cpu_template=template))
        machine.client.set_boot_source(BootSource(str(kernels / "rests")))
    with pytest.raises(VmmRefused, match="Start microvm error"):
        for template in ("T2", "T2A"):
            Client(at(str(machine.folder.parent / template / "api.sock"))).start()


def test_snapshots_full_and_different(vmm: Make, kernels: Path, tmp_path: Path) -> None:
    machine = vmm()
    client = started(machine, kernels / "counts")
    client.pause()
    assert client.describe().state == "Paused"
    assert not machine.said_more()
    full, diff = (SnapshotCreate(f"{tmp_path}/{kind}.state", f"{tmp_path}/{kind}.memory", kind) for kind in KINDS)
    client.create_snapshot(full)
    client.resume()
    assert machine.said_more()
    client.pause()
    client.create_snapshot(diff)
    blocks = [Path(one.mem_file_path).stat().st_blocks for one in (full, diff)]
    assert blocks[0] > blocks[1] > 0

    restored = vmm("restored")
    backend = MemoryBackend("File", full.mem_file_path)
    restored.client.load_snapshot(SnapshotLoad(full.snapshot_path, backend, enable_diff_snapshots=True))
    assert restored.client.describe().state == "Paused"
    assert not restored.said_more()
    restored.client.resume()
    until("more of the restored guest", restored.said_more)
    assert HELLO not in restored.console
    restored.client.pause()
    restored.client.create_snapshot(diff)
    restored_config = restored.client.configuration().machine_config
    assert restored_config is not None
    assert restored_config.mem_size_mib == SMALL.mem_size_mib

    at_once = vmm("at-once")
    at_once.client.load_snapshot(SnapshotLoad(full.snapshot_path, mem_file_path=full.mem_file_path, resume_vm=True))
    at_once.client.pause()
    at_once.client.resume()


KINDS = ("Full", "Diff")


def test_a_different_snapshot_needs_pages_followed(vmm: Make, kernels: Path, tmp_path: Path) -> None:
    machine = vmm()
    client = started(machine, kernels / "rests", MachineConfiguration(1, 32))
    client.pause()
    with pytest.raises(VmmRefused, match="dirty page tracking disabled"):
        client.create_snapshot(SnapshotCreate(f"{tmp_path}/state", f"{tmp_path}/memory", "Diff"))


def test_what_a_state_forbids_is_not_sent(vmm: Make, kernels: Path, tmp_path: Path) -> None:
    (tmp_path / "metrics").touch()
    machine = vmm()
    client = machine.client
    client.set_metrics(Metrics(str(tmp_path / "metrics")))
    snapshot = SnapshotCreate(f"{tmp_path}/state", f"{tmp_path}/memory")
    for call in (client.pause, client.resume, client.flush_metrics, client.send_ctrl_alt_del):
        with pytest.raises(WrongState, match="start the machine first"):
            call()
    with pytest.raises(WrongState, match="pause the machine first"):
        client.create_snapshot(snapshot)
    started(machine, kernels / "rests")
    with pytest.raises(WrongState, match=r"InstanceStart is not possible now.*needed: Not started; have: Running"):
        client.start()
    with pytest.raises(WrongState):
        client.create_snapshot(snapshot)
    with pytest.raises(WrongState):
        client.load_snapshot(SnapshotLoad("state", mem_file_path="memory"))
    client.flush_metrics()
    lines = [json.loads(line) for line in (tmp_path / "metrics").read_bytes().splitlines()]
    # The one start and the one flush that were possible.
    assert sum(line["put_api_requests"]["actions_count"] for line in lines) == 2
    assert sum(line["put_api_requests"]["actions_fails"] for line in lines) == 0


def test_a_snapshot_goes_into_a_machine_without_any_configuration(vmm: Make) -> None:
    client = vmm().client
    client.set_machine(SMALL)
    with pytest.raises(WrongState, match="have: PUT /machine-config"):
        client.load_snapshot(SnapshotLoad("state", mem_file_path="memory"))


def test_a_state_that_another_client_has_changed(vmm: Make, kernels: Path) -> None:
    machine = vmm()
    client = started(machine, kernels / "rests")
    other = Client(at(str(machine.socket)))
    other.pause()
    with pytest.raises(WrongState):
        client.create_snapshot(SnapshotCreate("state", "memory"))
    assert client.describe().state == "Paused"
    client.create_snapshot(SnapshotCreate("state", "memory"))
    other.close()


def test_firecracker_s_own_words(vmm: Make, tmp_path: Path) -> None:
    client = vmm().client
    with pytest.raises(VmmRefused, match="without kernel configuration"):
        client.start()
    with pytest.raises(VmmRefused, match="kernel file cannot be opened") as refused:
        client.set_boot_source(BootSource(str(tmp_path / "none")))
    assert refused.value.status == 400
    assert refused.value.call == "PUT /boot-source"
    with pytest.raises(SpecError, match="at most 51200 bytes"):
        client.set_metadata({"long": "x" * 60_000})
    client.set_metadata({"long": "x" * 40_000})
    with pytest.raises(VmmRefused, match="limit exceeded") as refused:
        client.change_metadata({"longer": "x" * 40_000})
    assert refused.value.status == 413
    # After a refusal the connection is of use still.
    assert client.version() == "1.12.1"


def test_every_path_of_the_published_definitions_has_a_call() -> None:
    """The paths and methods of src/firecracker/swagger/firecracker.yaml, 1.12.1."""
    published = {
        "GET /", "PUT /actions", "GET /balloon", "PUT /balloon", "PATCH /balloon", "GET /balloon/statistics",
        "PATCH /balloon/statistics", "PUT /boot-source", "PUT /cpu-config", "PUT /drives/ID", "PATCH /drives/ID",
        "PUT /logger", "GET /machine-config", "PUT /machine-config", "PATCH /machine-config", "PUT /metrics",
        "GET /mmds", "PUT /mmds", "PATCH /mmds", "PUT /mmds/config", "PUT /entropy", "PUT /network-interfaces/ID",
        "PATCH /network-interfaces/ID", "PUT /snapshot/create", "PUT /snapshot/load", "GET /version", "PATCH /vm",
        "GET /vm/config", "PUT /vsock",
    }  # fmt: skip
    documented = {
        re.split(r"[:,.;]", line)[0]
        for method in vars(Client).values()
        for line in (method.__doc__ or "").splitlines()[:1]
        if line.startswith(("GET ", "PUT ", "PATCH "))
    }
    assert documented | {"PUT /actions"} == published
    assert {"start", "flush_metrics", "send_ctrl_alt_del"} <= set(vars(Client))
    assert models.Action.__struct_fields__ == ("action_type",)
