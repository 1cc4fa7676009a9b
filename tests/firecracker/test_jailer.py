"""A jailed Firecracker: what confines it, what it sees, and that nothing of it stays, whoever dies."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from immure.errors import BoxLost, RuntimeUnavailable, SetupFailed, SpecError, VmmRefused
from immure.host.cgroups import Found
from immure.runtimes.firecracker import claims, programs
from immure.runtimes.firecracker.claims import FIRST_UID, sweep
from immure.runtimes.firecracker.client import at
from immure.runtimes.firecracker.jailer import Jailed
from immure.runtimes.firecracker.models import BootSource, Drive

from . import jails
from .vmms import SOON_S, until

pytestmark = pytest.mark.root
Make = Callable[..., Jailed]


@pytest.fixture
def vmms(tmp_path: Path) -> Path:
    return tmp_path / "vmms"


@pytest.fixture
def jailed(place: Path, vmms: Path) -> Iterator[Make]:
    with ExitStack() as stack:

        def made(name: str = "vm", **keywords: bool) -> Jailed:
            machine = Jailed(jails.programs(place), str(vmms), name, **keywords)
            stack.callback(machine.close)
            return machine

        yield made
    assert jails.left(vmms) == []


def test_what_confines_it(jailed: Make, kernels: Path) -> None:
    machine, other = jailed("one"), jailed("two")
    for one in (machine, other):
        jails.start(one, kernels / "counts")
        found = one.confinement()
        assert (found.uid, found.gid) == (one.uid, one.uid)
        assert found.capabilities == 0
        assert found.no_new_privs
        assert found.seccomp == 2
        assert found.in_jail
        assert found.own_namespaces == ("mnt", "pid", "net")
        assert any(f"vmm-immure-{one.uid}" in line for line in found.cgroups)
    assert machine.uid != other.uid
    assert machine.client.describe().id == "one"
    assert jailed("three", own_network=False).confinement().own_namespaces == ("mnt", "pid")


def test_what_a_vmm_has_open(jailed: Make, kernels: Path) -> None:
    """Its own, and of ours its standard descriptors alone: the null device, and the pipe that is its console."""
    machine = jailed()
    jails.start(machine, kernels / "rests")
    found = {one.name: str(one.readlink()) for one in Path(f"/proc/{machine.pid}/fd").iterdir()}
    assert found["0"] == "/dev/null"
    assert found["1"] == found["2"]
    assert found["1"].startswith("pipe:")
    others = {name: target for name, target in found.items() if int(name) > 2}
    own = ("anon_inode:", "socket:", "/dev/kvm", "/files/", "/memfd:", "/dev/urandom")
    assert [target for target in others.values() if not target.startswith(own)] == []
    kernels_files = [target for target in others.values() if target.startswith("/files/")]
    assert all(target == "/files/kernel" for target in kernels_files)


def test_readback_tells_an_unconfined_process_apart(jailed: Make) -> None:
    """The control: the same questions about a process that nothing confines."""
    machine = jailed()
    machine.pid = os.getpid()
    found = machine.confinement()
    assert found.uid == 0
    assert found.capabilities != 0
    assert not found.in_jail
    assert found.own_namespaces == ()


def test_a_guest_s_own_end(jailed: Make, kernels: Path) -> None:
    machine = jailed()
    jails.start(machine, kernels / "ends")
    assert machine.wait(SOON_S) == 0
    with pytest.raises(BoxLost):
        machine.confinement()


def test_a_vmm_that_is_killed(jailed: Make, kernels: Path) -> None:
    machine = jailed()
    jails.start(machine, kernels / "rests")
    os.kill(machine.pid, signal.SIGKILL)
    assert machine.wait(SOON_S) == 128 + signal.SIGKILL
    with pytest.raises(BoxLost):
        machine.client.describe()
    assert "status 137" in str(machine.lost("it ended"))


def test_files_are_seen_as_they_are_and_not_changed(jailed: Make, kernels: Path, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_bytes((kernels / "counts").read_bytes())
    private.chmod(0o600)
    os.chown(private, 1234, 1234)
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(1 << 20))
    disk.chmod(0o600)
    before = [(one.stat().st_uid, one.stat().st_mode, one.stat().st_mtime_ns) for one in (private, disk)]
    machine = jailed()
    with pytest.raises(VmmRefused, match="No such file"):
        machine.client.set_boot_source(BootSource(str(private)))
    machine.client.set_drive(Drive("disk", False, machine.bring(str(disk), "1", writable=True), False))
    read_only = machine.bring(str(disk), "2")
    with pytest.raises(VmmRefused, match="Read-only file system"):
        machine.client.set_drive(Drive("other", False, read_only, False))
    machine.client.set_drive(Drive("other", False, read_only, True))
    jails.start(machine, private)
    mounts = Path(f"/proc/{machine.pid}/mountinfo").read_text()
    options = {words[4]: words[5].split(",") for words in map(str.split, mounts.splitlines())}
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(options["/files/1"])
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options["/files/2"])
    assert str(private) not in Path("/proc/self/mountinfo").read_text()
    machine.close()
    assert [(one.stat().st_uid, one.stat().st_mode, one.stat().st_mtime_ns) for one in (private, disk)] == before


def test_a_file_system_that_shows_files_as_they_are_alone(jailed: Make, tmp_path: Path) -> None:
    """ramfs has no idmapped mounts: what others may read is seen, and what they may not is refused by name."""
    memory = tmp_path / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", memory], check=True)
    try:
        for name, mode in (("open", 0o644), ("private", 0o600)):
            (memory / name).write_bytes(bytes(4096))
            (memory / name).chmod(mode)
        machine = jailed()
        machine.client.set_drive(Drive("open", False, machine.bring(str(memory / "open"), "open"), True))
        with pytest.raises(SpecError, match="can't be shown as a file of user"):
            machine.bring(str(memory / "private"), "private")
        with pytest.raises(SpecError, match="can't be shown as a file of user"):
            machine.bring(str(memory / "open"), "open", writable=True)
        machine.close()
    finally:
        subprocess.run(["umount", memory], check=True)


@pytest.mark.parametrize("source", ["/nonexistent", "relative", "/", "/dev/null", "/tmp\0x"])
def test_what_is_no_file(jailed: Make, source: str) -> None:
    with pytest.raises(SpecError):
        jailed().bring(source, "file")


def test_a_socket_that_the_vmm_s_user_puts_in_the_place_of_its_own(
    jailed: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VMM that was taken over can't have us speak with somebody else's socket."""
    machine = jailed()
    assert machine.client.version() == "1.12.1"
    machine.client.close()
    with socket.socket(socket.AF_UNIX) as elsewhere:
        elsewhere.bind(str(tmp_path / "elsewhere"))
        elsewhere.listen()
        own = machine.root / "run/api.socket"
        own.unlink()
        own.symlink_to(tmp_path / "elsewhere")
        monkeypatch.chdir(own.parent)
        at(own.name)(1.0).close()  # What would follow the link.
        with pytest.raises(BoxLost):
            machine.client.version()
        own.unlink()
        os.link(tmp_path / "elsewhere", own)
        with pytest.raises(BoxLost, match="somebody else"):
            machine.client.version()


def test_memory_is_bounded(jailed: Make) -> None:
    machine = jailed()
    places = [Path(one) for one in machine._claim.record.cgroups]

    def shown(*names: str) -> list[str]:
        found = [place / name for place in places for name in names]
        return [path.read_text().strip() for path in found if path.exists()]

    for guest_mib in (16, 48, 32):
        machine.limit_memory(guest_mib)
        bound = str((guest_mib + 64) << 20)
        assert shown("memory.max", "memory.limit_in_bytes") == [bound]
        assert set(shown("memory.memsw.limit_in_bytes")) <= {bound}
        assert set(shown("memory.swap.max")) <= {"0"}
    assert machine.bounds() == (96 << 20, 64)


def test_what_nothing_bounds_is_not_said_to_be(jailed: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host whose cgroups this user can't write."""
    monkeypatch.setattr("immure.runtimes.firecracker.jailer.find_parents", lambda: Found((), ""))
    machine = jailed()
    machine.limit_memory(32)
    assert machine.bounds() == (None, None)


def test_a_tap_that_was_made_goes_when_its_owner_is_killed(place: Path, vmms: Path) -> None:
    code = """
        print(jailed.make_tap(), flush=True)
        time.sleep(600)
    """
    with jails.owner(place, vmms, code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        uid = int(process.stdout.readline().split()[0])
        device = Path("/sys/class/net", process.stdout.readline().strip())
        assert int((device / "owner").read_text()) == uid
        process.kill()
    until("end of the VMM", lambda: not jails.running(uid))
    assert sweep(str(vmms)) == 1
    assert not device.exists()


def test_a_device_of_its_name_that_is_somebody_else_s_stays(jailed: Make) -> None:
    machine = jailed(own_network=False)
    taken = f"ivm{machine.uid - FIRST_UID}n0"
    subprocess.run(["ip", "tuntap", "add", "dev", taken, "mode", "tap"], check=True)
    try:
        with pytest.raises(SetupFailed, match=taken):
            machine.make_tap()
        machine.close()
        assert Path("/sys/class/net", taken).exists(), "it is not this machine's"
    finally:
        subprocess.run(["ip", "link", "delete", taken], check=True)


def test_it_ends_with_its_owner(place: Path, vmms: Path, kernels: Path) -> None:
    code = """
        start(jailed, Path(sys.argv[1]))
        print("runs", flush=True)
        time.sleep(600)
    """
    with jails.owner(place, vmms, code, kernels / "counts") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        uid, pid = map(int, process.stdout.readline().split())
        assert process.stdout.readline() == "runs\n"
        watched = os.pidfd_open(pid)
        assert jails.running(uid)
        process.kill()
    until("end of the VMM", lambda: not jails.running(uid))
    os.close(watched)
    assert jails.left(vmms)
    assert sweep(str(vmms)) == 1
    assert jails.left(vmms) == []
    assert sweep(str(vmms)) == 0


def test_a_sweep_leaves_alone_what_somebody_has(jailed: Make, kernels: Path, vmms: Path) -> None:
    machine = jailed()
    jails.start(machine, kernels / "rests")
    assert sweep(str(vmms)) == 0
    assert machine.client.describe().state == "Running"


def test_two_places_have_no_user_in_common(jailed: Make, place: Path, tmp_path: Path) -> None:
    """Else a sweep of the one would end the other's machines."""
    machine = jailed()
    other = Jailed(jails.programs(place), str(tmp_path / "other"), "vm")
    try:
        assert machine.uid != other.uid
        abandoned = tmp_path / "third" / str(machine.uid)
        abandoned.mkdir(parents=True)
        abandoned.parent.chmod(0o700)
        assert sweep(str(abandoned.parent)) == 1
        assert not abandoned.exists()
        assert machine.client.describe().state == "Not started"
    finally:
        other.close()


@pytest.mark.slow
def test_an_owner_that_dies_at_any_moment(place: Path, vmms: Path, kernels: Path) -> None:
    code = """
        start(jailed, Path(sys.argv[1]))
        jailed.close()
    """
    chance = random.Random(7)
    for _ in range(100):
        with jails.owner(place, vmms, code, kernels / "counts") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begins\n"
            time.sleep(chance.uniform(0, 0.12))
            process.kill()
        # Who was just being started has the lock for a moment longer.
        until("clean place", lambda: sweep(str(vmms)) >= 0 and jails.left(vmms) == [])


def test_no_place_for_devices(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nodev,mode=700", "none", memory], check=True)
    try:
        with pytest.raises(SetupFailed, match="nodev"):
            sweep(str(memory))
    finally:
        subprocess.run(["umount", memory], check=True)


def test_a_place_that_others_can_enter(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(SetupFailed, match="mode 755"):
        sweep(str(tmp_path / "open"))
    assert claims.FIRST_UID == 0x7FA0_0000


def test_a_plain_user_has_no_jailer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "is_root", lambda: False)
    with pytest.raises(RuntimeUnavailable, match="can't be run by this user; needed: root"):
        programs.find_programs({})


def test_no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"have: none in PATH; to do: .*IMMURE_FIRECRACKER"):
        programs.find_programs({"PATH": str(tmp_path)})
    with pytest.raises(RuntimeUnavailable, match="IMMURE_JAILER=/nonexistent"):
        programs.find_programs({"PATH": str(place), "IMMURE_JAILER": "/nonexistent"})
    assert programs.find_programs({"PATH": str(place)}).jailer == str(place / "jailer")
    monkeypatch.setattr(programs, "KVM", str(tmp_path / "kvm"))
    with pytest.raises(RuntimeUnavailable, match="needs KVM"):
        programs.find_programs({"PATH": str(place)})
