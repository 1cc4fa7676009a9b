"""The `/vms` API, by curl and a real Firecracker. SPECIFICATION.md, chapter 4.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from immure.runtimes.firecracker.client import at

from . import jails
from .daemons import Daemon
from .guests import HELLO
from .vmms import until

pytestmark = pytest.mark.root
SIZE = {"vcpu_count": 1, "mem_size_mib": 32}


@pytest.fixture(scope="module")
def daemon(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed: tools/install_test_packages.sh")
    with Daemon(place, tmp_path_factory.mktemp("daemon")) as one:
        yield one
        assert "Traceback" not in one.words
    assert jails.left(one.vmms) == []
    assert not one.socket.exists()


@pytest.fixture(autouse=True)
def nothing_stays(daemon: Daemon) -> Iterator[None]:
    yield
    for one in daemon.curl("GET", "/vms").body["vms"]:
        assert daemon.curl("DELETE", f"/vms/{one['vm_id']}").status == 204
    assert jails.left(daemon.vmms) == []


@pytest.fixture
def tap() -> Iterator[str]:
    name = f"imv{os.getpid() % 100_000}"
    subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


def test_the_specification_s_three_calls(daemon: Daemon, kernels: Path, tap: str) -> None:
    made = daemon.curl("PUT", "/vms/vm-1", {"vcpu_count": 2, "mem_size_mib": 512, "ht_enabled": False})
    assert made.status == 201
    assert made.headers["deprecation"] == "true"
    assert made.body["state"] == "Not started"
    assert made.body["schema"] == "immure.vm/v1"
    kernel = {"kernel_image_path": str(kernels / "counts"), "boot_args": "console=ttyS0"}
    assert daemon.curl("PUT", "/vms/vm-1/boot-source", kernel).status == 204
    network = {"iface_id": "eth0", "guest_mac": "AA:FC:00:00:00:01", "host_dev_name": tap}
    assert daemon.curl("PUT", "/vms/vm-1/networks/eth0", network).status == 204
    assert daemon.curl("PUT", "/vms/vm-1/actions", {"action_type": "InstanceStart"}).status == 204
    daemon.console_has("vm-1", HELLO)
    seen = daemon.curl("GET", "/vms/vm-1").body
    assert seen["state"] == "Running"
    assert seen["machine_config"] == {"vcpu_count": 2, "mem_size_mib": 512}
    assert seen["boot_source"] == kernel
    assert seen["networks"] == [network]
    # Somebody has the device now; and it is this host's network in which that one is.
    busy = subprocess.run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"], capture_output=True, text=True)
    assert "busy" in busy.stderr
    assert Path(f"/proc/{seen['pid']}/ns/net").readlink() == Path("/proc/self/ns/net").readlink()
    assert daemon.curl("DELETE", "/vms/vm-1").status == 204
    assert daemon.curl("GET", "/vms/vm-1").status == 404


def test_smt_and_its_old_name(daemon: Daemon) -> None:
    old = daemon.curl("PUT", "/vms/old", {**SIZE, "vcpu_count": 2, "ht_enabled": True})
    assert (old.status, old.headers.get("deprecation")) == (201, "true")
    assert old.body["machine_config"]["smt"] is True
    new = daemon.curl("PUT", "/vms/new", {**SIZE, "vcpu_count": 2, "smt": True})
    assert (new.status, new.headers.get("deprecation")) == (201, None)
    both = daemon.curl("PUT", "/vms/both", {**SIZE, "smt": True, "ht_enabled": True})
    assert both.status == 201 or both.error["code"] == "IMM-VMM"
    contrary = daemon.curl("PUT", "/vms/contrary", {**SIZE, "smt": False, "ht_enabled": True})
    assert contrary.status == 400
    assert contrary.error["need"] == "the same value, or smt alone"
    assert daemon.curl("GET", "/vms/contrary").status == 404


def test_the_rest_of_a_machine_s_life(
    daemon: Daemon, kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, other = tmp_path / "disk", tmp_path / "other"
    for file in (disk, other):
        file.write_bytes(bytes(1 << 20))
        file.chmod(0o600)
    assert daemon.curl("PUT", "/vms/one", SIZE).status == 201
    assert daemon.curl("PATCH", "/vms/one", {"mem_size_mib": 48, "track_dirty_pages": True}).status == 200
    drive = {"drive_id": "disk", "is_root_device": False, "path_on_host": str(disk), "is_read_only": False}
    assert daemon.curl("PUT", "/vms/one/drives/disk", drive).status == 204
    assert daemon.curl("PUT", "/vms/one/drives/disk", drive).status == 204
    assert daemon.curl("PUT", "/vms/one/vsock", {"guest_cid": 3, "uds_path": "./v.sock"}).status == 204
    boot = {"kernel_image_path": str(kernels / "counts")}
    assert daemon.curl("PUT", "/vms/one/boot-source", boot).status == 204
    assert daemon.curl("PUT", "/vms/one/actions", {"action_type": "InstanceStart"}).status == 204
    daemon.console_has("one", HELLO)
    assert daemon.curl("PATCH", "/vms/one/drives/disk", {"drive_id": "disk", "path_on_host": str(other)}).status == 204
    seen = daemon.curl("GET", "/vms/one").body
    assert seen["bounds"] == {"memory_bytes": (48 + 64) << 20, "processes": 64}
    assert seen["machine_config"]["mem_size_mib"] == 48
    assert seen["drives"][0]["path_on_host"] == str(other)
    monkeypatch.chdir(Path(seen["vsock"]["uds_path"]).parent)
    at("v.sock")(1.0).close()
    assert daemon.curl("PATCH", "/vms/one", {"state": "Paused"}).body["state"] == "Paused"
    assert daemon.curl("PATCH", "/vms/one", {"state": "Resumed"}).body["state"] == "Running"
    metrics = daemon.curl("GET", "/vms/one/metrics").body
    assert metrics["schema"] == "immure.vm-metrics/v1"
    assert metrics["metrics"]["vcpu"]["exit_io_out"] > 0
    assert daemon.curl("PUT", "/vms/one/actions", {"action_type": "SendCtrlAltDel"}).status == 204
    whole = daemon.curl("GET", "/vms/one/console")
    assert whole.headers["immure-console-start"] == "0"
    some = daemon.curl("GET", f"/vms/one/console?from={len(HELLO)}")
    assert some.content[:4] == b"bcde"
    assert [one["vm_id"] for one in daemon.curl("GET", "/vms").body["vms"]] == ["one"]


def test_snapshots(daemon: Daemon, kernels: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    disk.chmod(0o600)
    drive = {"drive_id": "disk", "is_root_device": False, "path_on_host": str(disk), "is_read_only": True}
    assert daemon.curl("PUT", "/vms/one", {**SIZE, "track_dirty_pages": True}).status == 201
    assert daemon.curl("PUT", "/vms/one/drives/disk", drive).status == 204
    for path, body in (
        ("boot-source", {"kernel_image_path": str(kernels / "counts")}),
        ("vsock", {"guest_cid": 3}),
        ("actions", {"action_type": "InstanceStart"}),
    ):
        assert daemon.curl("PUT", f"/vms/one/{path}", body).status == 204
    files = {"snapshot_path": str(tmp_path / "state"), "mem_file_path": str(tmp_path / "memory")}
    early = daemon.curl("PUT", "/vms/one/snapshot/create", files)
    assert (early.status, early.error["hint"]) == (409, "pause the machine first")
    assert not (tmp_path / "state").exists()
    daemon.curl("PATCH", "/vms/one", {"state": "Paused"})
    assert daemon.curl("PUT", "/vms/one/snapshot/create", files).status == 204
    assert (tmp_path / "memory").stat().st_size == 32 << 20
    assert (tmp_path / "memory").stat().st_uid == 0
    again = daemon.curl("PUT", "/vms/one/snapshot/create", files)
    assert (again.status, again.error["need"]) == (400, "a path where nothing is")
    daemon.curl("PATCH", "/vms/one", {"state": "Resumed"})
    daemon.curl("PATCH", "/vms/one", {"state": "Paused"})
    merged = {**files, "snapshot_path": str(tmp_path / "state2"), "snapshot_type": "Diff"}
    assert daemon.curl("PUT", "/vms/one/snapshot/create", merged).status == 204

    load = {
        "snapshot_path": str(tmp_path / "state2"),
        "mem_backend": {"backend_type": "File", "backend_path": str(tmp_path / "memory")},
        "resume_vm": True,
    }
    drives = [{"drive_id": "disk", "path_on_host": str(disk), "is_read_only": True}]
    for name in ("two", "three"):
        assert daemon.curl("PUT", f"/vms/{name}", {}).status == 201
        assert daemon.curl("PUT", f"/vms/{name}/snapshot/load", {**load, "drives": drives}).status == 204
        until("word of the restored guest", lambda name=name: daemon.curl("GET", f"/vms/{name}").body["console_bytes"])
        assert HELLO not in daemon.curl("GET", f"/vms/{name}/console").content
        assert daemon.curl("GET", f"/vms/{name}").body["machine_config"]["mem_size_mib"] == 32
    seen = daemon.curl("GET", "/vms/two").body
    assert drive.items() <= seen["drives"][0].items()
    assert seen["vsock"]["guest_cid"] == 3
    for changed, status in (("disk", 204), ("none", 400)):
        patch = {"drive_id": changed, "path_on_host": str(disk)}
        assert daemon.curl("PATCH", f"/vms/two/drives/{changed}", patch).status == status
    configured = daemon.curl("PUT", "/vms/one/snapshot/load", {**load, "drives": drives})
    assert configured.status == 409


def test_a_snapshot_with_a_network(daemon: Daemon, kernels: Path, tmp_path: Path, tap: str) -> None:
    other = f"{tap}z"[:15]
    subprocess.run(["ip", "tuntap", "add", "dev", other, "mode", "tap", "user", "0"], check=True)
    try:
        assert daemon.curl("PUT", "/vms/one", SIZE).status == 201
        for path, body in (
            ("networks/eth0", {"iface_id": "eth0", "host_dev_name": tap}),
            ("boot-source", {"kernel_image_path": str(kernels / "counts")}),
            ("actions", {"action_type": "InstanceStart"}),
        ):
            assert daemon.curl("PUT", f"/vms/one/{path}", body).status == 204
        daemon.curl("PATCH", "/vms/one", {"state": "Paused"})
        files = {"snapshot_path": str(tmp_path / "state"), "mem_file_path": str(tmp_path / "memory")}
        assert daemon.curl("PUT", "/vms/one/snapshot/create", files).status == 204
        # Without a device of this host it can't be: in its own network there is none.
        daemon.curl("PUT", "/vms/none", {})
        assert daemon.curl("PUT", "/vms/none/snapshot/load", {**files, "resume_vm": True}).status == 400
        daemon.curl("PUT", "/vms/two", {})
        overrides = [{"iface_id": "eth0", "host_dev_name": other}]
        load = {**files, "resume_vm": True, "network_overrides": overrides}
        assert daemon.curl("PUT", "/vms/two/snapshot/load", load).status == 204
        seen = daemon.curl("GET", "/vms/two").body
        assert [one["iface_id"] for one in seen["networks"]] == ["eth0"]
        assert Path(f"/sys/class/net/{other}/owner").read_text().strip() == str(seen["user"])
        assert daemon.curl("DELETE", "/vms/two").status == 204
        assert Path(f"/sys/class/net/{other}/owner").read_text().strip() == "0"
    finally:
        subprocess.run(["ip", "link", "delete", other], check=True)


@pytest.mark.parametrize("what", ["cut", "foreign", "empty", "other memory"])
def test_a_snapshot_that_is_none(daemon: Daemon, kernels: Path, tmp_path: Path, what: str) -> None:
    daemon.runs("one", kernels / "rests")
    daemon.curl("PATCH", "/vms/one", {"state": "Paused"})
    state, memory = tmp_path / "state", tmp_path / "memory"
    files = {"snapshot_path": str(state), "mem_file_path": str(memory)}
    assert daemon.curl("PUT", "/vms/one/snapshot/create", files).status == 204
    content = bytearray(state.read_bytes())
    if what == "cut":
        state.write_bytes(content[: len(content) // 2])
    elif what == "foreign":
        content[len(content) // 2] ^= 0xFF
        state.write_bytes(content)
    elif what == "empty":
        state.write_bytes(b"")
    else:
        memory.write_bytes(bytes(1 << 20))
    assert daemon.curl("PUT", "/vms/two", {}).status == 201
    said = daemon.curl("PUT", "/vms/two/snapshot/load", {"snapshot_path": str(state), "mem_file_path": str(memory)})
    assert (said.status, said.error["code"]) == (400, "IMM-VMM")
    assert "Load snapshot error" in said.error["have"]
    until("end", lambda: daemon.curl("GET", "/vms/two").body["state"] == "Ended")
    later = daemon.curl("PUT", "/vms/two/snapshot/load", {"snapshot_path": str(state), "mem_file_path": str(memory)})
    assert (later.status, later.error["hint"]) == (409, "DELETE it, and make another")


def test_a_full_disk(daemon: Daemon, kernels: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", small], check=True)
    try:
        daemon.runs("one", kernels / "counts")
        daemon.curl("PATCH", "/vms/one", {"state": "Paused"})
        files = {"snapshot_path": str(small / "state"), "mem_file_path": str(small / "memory")}
        said = daemon.curl("PUT", "/vms/one/snapshot/create", files)
        assert said.status == 400
        assert "No space left on device" in said.error["have"]
        assert list(small.iterdir()) == []
        # The machine is what it was.
        assert daemon.curl("PATCH", "/vms/one", {"state": "Resumed"}).body["state"] == "Running"
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_kernel_that_is_none(daemon: Daemon, tmp_path: Path) -> None:
    daemon.curl("PUT", "/vms/one", SIZE)
    (tmp_path / "kernel").write_bytes(b"no kernel" * 1000)
    assert daemon.curl("PUT", "/vms/one/boot-source", {"kernel_image_path": str(tmp_path / "kernel")}).status == 204
    said = daemon.curl("PUT", "/vms/one/actions", {"action_type": "InstanceStart"})
    assert (said.status, said.error["code"]) == (400, "IMM-VMM")
    assert "Cannot load kernel" in said.error["have"]
    none = daemon.curl("PUT", "/vms/one/boot-source", {"kernel_image_path": str(tmp_path / "none")})
    assert (none.status, none.error["have"]) == (400, "No such file or directory")
    folder = daemon.curl("PUT", "/vms/one/boot-source", {"kernel_image_path": str(tmp_path)})
    assert (folder.status, folder.error["need"]) == (400, "a regular file or a block device")


def test_a_vmm_that_is_killed(daemon: Daemon, kernels: Path) -> None:
    daemon.runs("one", kernels / "counts")
    os.kill(daemon.curl("GET", "/vms/one").body["pid"], 9)
    until("end", lambda: daemon.curl("GET", "/vms/one").body["state"] == "Ended")
    seen = daemon.curl("GET", "/vms/one").body
    assert (seen["status"], seen["pid"], seen["user"]) == (137, None, None)
    said = daemon.curl("PATCH", "/vms/one", {"state": "Paused"})
    assert said.status == 409
    assert "ended with status 137" in said.error["have"]
    assert HELLO in daemon.curl("GET", "/vms/one/console").content


def test_vmms_that_do_not_answer(daemon: Daemon, kernels: Path) -> None:
    for name in ("one", "two"):
        daemon.runs(name, kernels / "rests")
    os.kill(daemon.curl("GET", "/vms/one").body["pid"], signal.SIGSTOP)
    waits = ["curl", "-sS", "--unix-socket", str(daemon.socket), "-X", "PATCH", "-d", '{"state": "Paused"}']
    callers = [
        subprocess.Popen([*waits, "http://localhost/vms/one"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(12)
    ]
    # Those wait for a machine, and no other one does.
    assert daemon.curl("GET", "/vms/two").body["state"] == "Running"
    states = {one["vm_id"]: one["state"] for one in daemon.curl("GET", "/vms").body["vms"]}
    assert states["two"] == "Running"
    assert states["one"] in ("Busy", "Silent")
    # Nor does the end of it wait for them.
    assert daemon.curl("DELETE", "/vms/one").status == 204
    for caller in callers:
        assert json.loads(caller.communicate()[0])["error"]["code"] in ("IMM-LOST", "IMM-STATE", "IMM-NO-VM")
    assert daemon.curl("GET", "/vms/two").body["state"] == "Running"


@pytest.mark.slow
def test_a_vmm_that_is_silent(daemon: Daemon, kernels: Path) -> None:
    daemon.runs("one", kernels / "rests")
    os.kill(daemon.curl("GET", "/vms/one").body["pid"], signal.SIGSTOP)
    said = daemon.curl("PATCH", "/vms/one", {"state": "Paused"})
    assert (said.status, said.error["need"]) == (502, "one within 10 s")
    assert daemon.curl("GET", "/vms/one").body["state"] == "Silent"


def test_a_guest_s_own_end(daemon: Daemon, kernels: Path) -> None:
    daemon.runs("one", kernels / "ends")
    until("end", lambda: daemon.curl("GET", "/vms/one").body["state"] == "Ended")
    assert daemon.curl("GET", "/vms/one").body["status"] == 0


def test_what_a_state_forbids(daemon: Daemon, kernels: Path) -> None:
    daemon.runs("one", kernels / "rests")
    for method, path, body in (
        ("PUT", "", SIZE),
        ("PATCH", "", {"mem_size_mib": 64}),
        ("PUT", "/boot-source", {"kernel_image_path": str(kernels / "ends")}),
        ("PUT", "/actions", {"action_type": "InstanceStart"}),
        ("PUT", "/vsock", {"guest_cid": 3}),
    ):
        said = daemon.curl(method, f"/vms/one{path}", body)
        assert (said.status, said.error["code"]) == (409, "IMM-STATE"), said
        assert said.error["have"] == "Running"
    assert daemon.curl("PUT", "/vms/two", SIZE).status == 201
    early = daemon.curl("PATCH", "/vms/two", {"state": "Paused"})
    assert (early.status, early.error["have"]) == (409, "Not started")


@pytest.mark.parametrize(
    "name", ["-x", "a_b", "a.b", "..", "%2e%2e", "..%2f..%2fetc", "a" * 65, "%00", "a%0a", "ä", "%20"]
)
def test_names_that_are_none(daemon: Daemon, name: str) -> None:
    for method, path, body in (("PUT", "", SIZE), ("GET", "", None), ("DELETE", "", None), ("GET", "/console", None)):
        said = daemon.curl(method, f"/vms/{name}{path}", body)
        assert said.status in (400, 404, 405), said
        assert said.error["code"] in ("IMM-SPEC", "IMM-NO-ROUTE", "IMM-NO-METHOD")
    assert daemon.curl("GET", "/vms").body["vms"] == []


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, ""),
        (b"[]", 400, "Expected `object`"),
        ({**SIZE, "colour": "red"}, 400, "unknown field `colour`"),
        ({"vcpu_count": 1}, 400, "a machine has a size"),
        ({**SIZE, "vcpu_count": 33}, 400, "$.vcpu_count"),
        ({**SIZE, "mem_size_mib": 0}, 400, "$.mem_size_mib"),
        (b"x" * 200_000, 413, "too long"),
        (b"[" * 60_000, 400, ""),
    ],
)
def test_bodies_that_are_none(daemon: Daemon, body: object, status: int, words: str) -> None:
    said = daemon.curl("PUT", "/vms/one", body)
    assert said.status == status, said
    assert words in said.error["message"]
    assert set(said.error) == {"code", "message", "need", "have", "hint"}
    assert daemon.curl("GET", "/vms/one").status == 404


def test_ids_of_path_and_body(daemon: Daemon) -> None:
    daemon.curl("PUT", "/vms/one", SIZE)
    said = daemon.curl("PUT", "/vms/one/networks/eth1", {"iface_id": "eth0", "host_dev_name": "tap0"})
    assert (said.status, said.error["need"]) == (400, "eth1")


def test_a_tap_that_is_made(daemon: Daemon, kernels: Path) -> None:
    """It is the machine's user's, and goes with the machine."""
    assert daemon.curl("PUT", "/vms/one", SIZE).status == 201
    assert daemon.curl("PUT", "/vms/one/boot-source", {"kernel_image_path": str(kernels / "counts")}).status == 204
    for name in ("eth0", "eth1", "eth0"):
        assert daemon.curl("PUT", f"/vms/one/networks/{name}", {"iface_id": name}).status == 204
    seen = daemon.curl("GET", "/vms/one").body
    names = {one["iface_id"]: one["host_dev_name"] for one in seen["networks"]}
    assert set(names) == {"eth0", "eth1"}
    assert len(set(names.values())) == 2
    # What GET gives can be said again.
    assert daemon.curl("PUT", "/vms/one/networks/eth0", seen["networks"][0]).status == 204
    devices = [Path("/sys/class/net", name) for name in names.values()]
    assert [int((one / "owner").read_text()) for one in devices] == [seen["user"]] * 2
    assert daemon.curl("PUT", "/vms/one/actions", {"action_type": "InstanceStart"}).status == 204
    daemon.console_has("one", HELLO)
    busy = subprocess.run(["ip", "link", "show", "up", names["eth0"]], capture_output=True, text=True, check=True)
    assert busy.stdout == "", "it is nobody's to bring up but the caller's"
    late = daemon.curl("PUT", "/vms/one/networks/eth2", {"iface_id": "eth2"})
    assert late.status == 409
    assert len(daemon.curl("GET", "/vms/one").body["networks"]) == 2
    assert daemon.curl("DELETE", "/vms/one").status == 204
    assert [one for one in devices if one.exists()] == []


def test_taps_that_are_not_the_caller_s(daemon: Daemon, kernels: Path, tap: str) -> None:
    daemon.curl("PUT", "/vms/one", SIZE)

    def named(name: str) -> tuple[int, str | None]:
        said = daemon.curl("PUT", "/vms/one/networks/eth0", {"iface_id": "eth0", "host_dev_name": name})
        return said.status, None if said.status == 204 else said.error["have"]

    assert named("none0") == (400, "none of that name")
    assert named("lo") == (400, "another kind of device")
    theirs, ours = f"{tap}x"[:15], f"{tap}y"[:15]
    for name, user in ((theirs, "1234"), (ours, "0")):
        subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap", "user", user], check=True)
    try:
        assert named(theirs) == (400, "one of user 1234")
        assert named(ours) == (204, None)
        uid = daemon.curl("GET", "/vms/one").body["user"]
        assert Path(f"/sys/class/net/{ours}/owner").read_text().strip() == str(uid)
        # Said again, and with the rest of its configuration kept.
        assert named(ours) == (204, None)
        assert daemon.curl("GET", "/vms/one").body["machine_config"] == SIZE
        daemon.curl("DELETE", "/vms/one")
        assert Path(f"/sys/class/net/{ours}/owner").read_text().strip() == "0"
    finally:
        for name in (theirs, ours):
            subprocess.run(["ip", "link", "delete", name], check=True)


def test_two_callers_of_one_name_at_once(daemon: Daemon) -> None:
    body = json.dumps(SIZE)
    command = ["curl", "-sS", "--unix-socket", str(daemon.socket), "-X", "PUT", "-d", body, "-o", "/dev/null"]
    for turn in range(5):
        callers = [
            subprocess.Popen(
                [*command, "-w", "%{http_code}", f"http://localhost/vms/both{turn}"], stdout=subprocess.PIPE
            )
            for _ in range(4)
        ]
        statuses = sorted(caller.communicate()[0] for caller in callers)
        assert statuses == [b"200", b"200", b"200", b"201"]
    found = daemon.curl("GET", "/vms").body["vms"]
    assert len({one["pid"] for one in found}) == len(found) == 5
    assert len(list(daemon.vmms.glob("[0-9]*"))) == 5


def test_a_caller_that_is_killed(daemon: Daemon) -> None:
    command = ["curl", "-sS", "--unix-socket", str(daemon.socket), "-X", "PUT", "-d", json.dumps(SIZE)]
    for turn in range(10):
        with subprocess.Popen([*command, f"http://localhost/vms/gone{turn}"], stdout=subprocess.DEVNULL) as caller:
            try:
                caller.wait(0.005 * turn)
            except subprocess.TimeoutExpired:
                caller.kill()
    for turn in range(10):
        # There was one or there was none; now there is one.
        assert daemon.curl("PUT", f"/vms/gone{turn}", SIZE).status in (200, 201)
    assert len(list(daemon.vmms.glob("[0-9]*"))) == 10


def test_it_describes_itself(daemon: Daemon) -> None:
    said = daemon.curl("GET", "/openapi/vms.json")
    assert said.status == 200
    written = json.loads((Path(__file__).parents[2] / "docs/vms-openapi.json").read_text())
    assert said.body == written
    assert set(written["paths"]) >= {"/vms", "/vms/{vm_id}", "/vms/{vm_id}/actions", "/vms/{vm_id}/networks/{iface_id}"}


def test_the_socket_is_its_user_s_alone(daemon: Daemon) -> None:
    assert daemon.socket.stat().st_mode & 0o777 == 0o600
