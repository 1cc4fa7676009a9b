"""Machines that write to a disk of their own: where `disk_mib` is written."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from immure import AsyncSandbox, BoxLost, Pool, RuntimeUnavailable, Sandbox, SetupFailed, Snapshot, run
from immure.host.tree import below
from immure.plan import machine_space
from immure.runtimes.qemu.box import QemuBox

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(180)]

MEMORY_MIB, DISK_MIB = 64, 600
#: What docs/machines.md says `df` may show more.
MORE_MIB = 2
MIB = 1 << 20


@pytest.fixture(autouse=True)
def settings(kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks in a folder of this test's own."""
    (tmp_path / "disks").mkdir()
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))
    monkeypatch.setenv("IMMURE_DISKS", str(tmp_path / "disks"))


@pytest.fixture
def spec(image: Path) -> dict[str, Any]:
    base = {"runtime": "qemu", "level": "L3", "image": str(image), "workdir": "/"}
    return {**base, "memory_mib": MEMORY_MIB, "disk_mib": DISK_MIB, "protections": {"memory": "best_effort"}}


def said(box: Sandbox, script: str, **keywords: Any) -> str:
    """What a shell says, which knows busybox's commands by name."""
    return box.exec(["/bin/busybox", "sh", "-c", f"exec 2>&1; {script}"], **keywords).stdout.text().strip()


def available_kib(box: Sandbox) -> int:
    return int(said(box, "df -k /tmp").splitlines()[1].split()[3])


def disk_of(box: Sandbox) -> int:
    """The file that holds a box's disk: this process has it open for as long as the box is there."""
    assert isinstance(box._box, QemuBox)
    disk = box._box._vmm.disk
    assert disk is not None
    return disk


def holders(folder: Path) -> set[int]:
    """Who has a nameless file of a folder open, as far as this user may look."""
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        if any(name.startswith(f"{folder}/") for name in open_in(process)):
            found.add(int(process.name))
    return found


def named(folder: Path) -> list[Path]:
    """What has a name there, beside the folder that is its user's alone."""
    return [one for one in folder.rglob("*") if one != folder / f"immure-{os.geteuid()}"]


def open_in(process: Path) -> Iterator[str]:
    """What a process has open, as far as it lasts."""
    with suppress(OSError):
        for one in (process / "fd").iterdir():
            with suppress(OSError):
                yield os.readlink(one)  # noqa: PTH115


def ends(folder: Path) -> None:
    """Waits until nobody holds one."""
    until = time.monotonic() + 20
    while found := holders(folder):
        assert time.monotonic() < until, found
        time.sleep(0.05)


class TestRoom:
    def test_it_holds_more_than_the_machine_s_memory(self, spec: dict[str, Any]) -> None:
        size = 2 * MEMORY_MIB
        with Sandbox(**spec) as box:
            written = f"dd if=/dev/urandom bs=1M count={size} 2>/dev/null | tee /tmp/large | md5sum"
            first, second = said(box, f"{written}; md5sum < /tmp/large").splitlines()
            assert first == second
            assert box.files.stat("/tmp/large").size_bytes == size * MIB
            assert box.exec(["/bin/true"]).ok

    def test_as_much_as_was_asked_for(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            assert DISK_MIB << 10 <= available_kib(box) <= (DISK_MIB + MORE_MIB) << 10
            told = said(box, "dd if=/dev/zero of=/tmp/large bs=1M")
            assert "No space left on device" in told
            assert DISK_MIB * MIB <= box.files.stat("/tmp/large").size_bytes <= (DISK_MIB + MORE_MIB) * MIB
            said(box, "rm /tmp/large; echo room > /tmp/again")
            assert box.files.read("/tmp/again") == b"room\n"

    def test_what_is_removed_is_given_back_to_the_host(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            taken = lambda: os.fstat(disk_of(box)).st_blocks * 512  # noqa: E731
            before = taken()
            assert before < 4 * MIB
            said(box, "dd if=/dev/urandom of=/tmp/large bs=1M count=100; sync")
            assert taken() > before + 100 * MIB
            said(box, "rm /tmp/large; sync")
            assert taken() < before + 8 * MIB

    def test_shared_memory_is_memory(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            kinds = dict(re.findall(r"^\S+ (/tmp|/dev/shm) (\S+)", said(box, "cat /proc/mounts"), re.MULTILINE))
            assert kinds == {"/tmp": "ext4", "/dev/shm": "tmpfs"}
            assert said(box, "df -k /dev/shm").splitlines()[1].split()[1] == str(MEMORY_MIB // 2 << 10)
            assert said(box, "echo x > /dev/shm/a; stat -c %a /dev/shm /tmp") == "1777\n1777"

    def test_a_tmpfs_without_a_size_is_on_it_too(self, spec: dict[str, Any]) -> None:
        mounts = [{"tmpfs": "/work"}, {"tmpfs": "/small", "size_mib": 8}]
        with Sandbox(**spec, mounts=mounts) as box:
            devices = {line.split()[1]: line.split()[0] for line in said(box, "cat /proc/mounts").splitlines()}
            assert devices["/work"] == devices["/tmp"] != devices["/small"]
            said(box, f"dd if=/dev/zero of=/work/large bs=1M count={2 * MEMORY_MIB}")
            assert box.files.stat("/work/large").size_bytes == 2 * MEMORY_MIB * MIB

    def test_what_is_written_to_a_mount_is_brought_back_from_it(self, spec: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "source").mkdir()
        (tmp_path / "source/gone").write_text("gone")
        written = f"cd /work; rm gone; dd if=/dev/urandom of=large bs=1M count={MEMORY_MIB + 30} 2>/dev/null"
        ended = run(
            ["/bin/busybox", "sh", "-c", f"{written}; md5sum < large"],
            **spec,
            mounts=[(str(tmp_path / "source"), "/work", "rw")],
        )
        assert [one.name for one in (tmp_path / "source").iterdir()] == ["large"]
        with (tmp_path / "source/large").open("rb") as file:
            content = md5(file.read(), usedforsecurity=False).hexdigest()
        assert content == ended.stdout.text().split()[0]

    def test_without_it_there_is_no_further_disk(self, spec: dict[str, Any], tmp_path: Path) -> None:
        disks = {}
        for disk_mib in (None, DISK_MIB):
            with Sandbox(**{**spec, "disk_mib": disk_mib}) as box:
                disks[disk_mib] = re.findall(r"vd\w", said(box, "cat /proc/partitions"))
                (clause,) = [one for one in box.exec(["/bin/true"]).report if one.clause == "limits.disk_mib"]
                assert clause.got == "exact"
                assert ("a disk of the machine's own" in clause.by) == (disk_mib is not None)
                assert bool(holders(tmp_path / "disks")) == (disk_mib is not None)
        assert disks == {None: ["vda"], DISK_MIB: ["vda", "vdb"]}


class TestWalls:
    def test_the_box_has_no_device_of_it(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            assert "vdb" in said(box, "cat /proc/partitions"), "the control"
            assert said(box, "find / -xdev -type b; ls /dev | grep vd") == ""

    @pytest.mark.parametrize("landlock", ["auto", "off"])
    def test_nor_does_one_that_is_made_open_it(self, spec: dict[str, Any], landlock: str) -> None:
        """Where Landlock lets nobody make one, and where the mount alone keeps it closed."""
        level = "L1" if landlock == "off" else "L3"
        with Sandbox(**{**spec, "level": level}, landlock=landlock, capabilities={"add": ["MKNOD"]}) as box:
            (numbers,) = re.findall(r"^ *(\d+) +(\d+) +\d+ vdb$", said(box, "cat /proc/partitions"), re.MULTILINE)
            made = f"mknod /tmp/disk b {' '.join(numbers)} && echo made"
            if landlock == "off":
                assert said(box, made, user=0) == "made", "the control"
            else:
                assert "Permission denied" in said(box, made, user=0)
                assert said(box, "touch /tmp/disk && echo made", user=0) == "made", "the control"
                return
            for user in (0, 1000):
                assert said(box, "chmod 666 /tmp/disk; head -c 4 /dev/zero | wc -c", user=0) == "4"
                assert said(box, "head -c 4 /tmp/disk", user=user) == "head: /tmp/disk: Permission denied"

    def test_nothing_on_it_gains_privileges(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            flags = next(line.split()[3] for line in said(box, "cat /proc/mounts").splitlines() if " /tmp " in line)
            assert {"nosuid", "nodev"} <= set(flags.split(","))
            said(box, "cp /bin/busybox /tmp/id; chmod 4755 /tmp/id", user=0)
            assert said(box, "/tmp/id -u") == "1000"

    def test_each_has_its_own(self, spec: dict[str, Any]) -> None:
        """Nothing of one is on the disk of another, at the same time or later."""
        secret = os.urandom(32).hex().encode()
        with Sandbox(**spec) as first:
            first.files.write("/tmp/secret", secret)
            said(first, "sync")
            with Sandbox(**spec) as second:
                assert second.exec(["/bin/ls", "/tmp"]).stdout == b""
                said(second, "echo other > /tmp/other; sync")
                assert os.fstat(disk_of(first)).st_ino != os.fstat(disk_of(second)).st_ino
                assert found_on(disk_of(first), secret), "the control"
                assert not found_on(disk_of(second), secret)
                assert first.exec(["/bin/ls", "/tmp"]).stdout == b"secret\n"
        with Sandbox(**spec) as third:
            assert third.exec(["/bin/ls", "/tmp"]).stdout == b""
            assert not found_on(disk_of(third), secret)

    def test_a_vmm_makes_no_file_that_is_larger(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            (vmm,) = below(box._box.pid)
            limits = Path(f"/proc/{vmm}/limits").read_text()
            (most,) = re.findall(r"^Max file size +(\d+) +\1", limits, re.MULTILINE)
            assert int(most) == os.fstat(disk_of(box)).st_size


def found_on(disk: int, content: bytes) -> bool:
    with open(f"/proc/self/fd/{disk}", "rb") as file:  # noqa: PTH123
        return content in file.read()


class TestEnds:
    def test_nothing_is_left_when_the_box_is_closed(self, spec: dict[str, Any], tmp_path: Path) -> None:
        disks = tmp_path / "disks"
        with Sandbox(**spec) as box:
            said(box, "echo x > /tmp/x; sync")
            assert os.getpid() in holders(disks)
            assert named(disks) == [], "it has no name"
        ends(disks)

    @pytest.mark.parametrize("moment", ["while it comes up", "while it is used"])
    def test_nor_when_its_caller_is_killed(self, spec: dict[str, Any], tmp_path: Path, moment: str) -> None:
        program = (
            "from immure import Sandbox\n"
            f"with Sandbox(**{spec!r}) as box:\n"
            " box.exec(['/bin/busybox', 'dd', 'if=/dev/zero', 'of=/tmp/large', 'bs=1M', 'count=100'])\n"
            " print('used', flush=True)\n"
            " box.exec(['/bin/sleep', '100'])\n"
        )
        disks = tmp_path / "disks"
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as caller:
            assert caller.stdout is not None
            if moment == "while it is used":
                assert caller.stdout.readline() == b"used\n"
            until = time.monotonic() + 60
            while caller.pid not in holders(disks):
                assert time.monotonic() < until
                time.sleep(0.005)
            caller.send_signal(signal.SIGKILL)
        ends(disks)
        assert named(disks) == []

    def test_nor_when_its_vmm_is(self, spec: dict[str, Any], tmp_path: Path) -> None:
        with Sandbox(**spec) as box:
            for pid in below(box._box.pid):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(BoxLost):
                box.exec(["/bin/true"])
        ends(tmp_path / "disks")


class TestCopies:
    WRITE = f"dd if=/dev/urandom bs=1M count={MEMORY_MIB + 20} 2>/dev/null | tee /tmp/large | md5sum"
    READ = "md5sum < /tmp/large"

    def test_what_is_on_it_goes_along(self, spec: dict[str, Any], tmp_path: Path) -> None:
        """More of it than fits in memory, of which the newest is not on the disk yet."""
        with Sandbox(**spec) as box:
            content = said(box, self.WRITE)
            with box.snapshot() as taken:
                said(box, "echo changed > /tmp/large; sync")
                with Sandbox.restore(taken) as first, Sandbox.restore(taken) as second:
                    assert said(first, self.READ) == said(second, self.READ) == content
                    said(first, "rm /tmp/large; echo first > /tmp/mine; sync")
                    assert second.exec(["/bin/ls", "/tmp"]).stdout == b"large\n"
                    with first.snapshot() as again, Sandbox.restore(again) as third:
                        assert third.files.read("/tmp/mine") == b"first\n"
                    assert said(second, self.READ) == content
                with Sandbox.restore(taken) as last:
                    assert said(last, self.READ) == content
            assert box.files.read("/tmp/large") == b"changed\n"
        ends(tmp_path / "disks")

    def test_forks(self, spec: dict[str, Any], tmp_path: Path) -> None:
        with Sandbox(**spec) as box, ExitStack() as made:
            content = said(box, self.WRITE)
            forks = [made.enter_context(one) for one in box.fork(2)]
            assert len({os.fstat(disk_of(one)).st_ino for one in (box, *forks)}) == 3
            for number, one in enumerate(forks):
                assert said(one, self.READ) == content
                said(one, f"echo {number} > /tmp/large; sync")
            assert said(box, self.READ) == content
            for number, one in enumerate(forks):
                assert one.files.read("/tmp/large") == f"{number}\n".encode()
        ends(tmp_path / "disks")

    def test_awaited_forks(self, spec: dict[str, Any]) -> None:
        async def main() -> None:
            async with AsyncSandbox(**spec) as box:
                await box.files.write("/tmp/kept", b"content")
                (fork,) = await box.fork()
                assert await fork.files.read("/tmp/kept") == b"content"
                await fork.close()

        asyncio.run(main())

    def test_a_machine_that_moves_keeps_it(self, spec: dict[str, Any]) -> None:
        """One that has a memory of its own, and one that shares its memory with others."""
        with Sandbox(**spec) as box:
            content = said(box, self.WRITE)
            disk = os.fstat(disk_of(box)).st_ino
            with box.snapshot() as taken, Sandbox.restore(taken) as copy:
                for one in (box, copy):
                    one.migrate()
                    assert said(one, self.READ) == content
                    said(one, "rm /tmp/large; echo moved > /tmp/moved; sync")
                    one.migrate()
                    assert one.files.read("/tmp/moved") == b"moved\n"
            assert os.fstat(disk_of(box)).st_ino == disk

    def test_one_that_is_saved(self, spec: dict[str, Any], tmp_path: Path) -> None:
        with Sandbox(**spec) as box:
            content = said(box, self.WRITE)
            with box.snapshot() as taken:
                taken.save(tmp_path / "saved")
        found = (tmp_path / "saved/disk").stat()
        assert found.st_blocks * 512 < found.st_size // 2, "holes stay holes"
        for _ in range(2):
            with Snapshot.load(tmp_path / "saved") as loaded, Sandbox.restore(loaded) as copy:
                assert said(copy, f"{self.READ}; rm /tmp/large; sync") == content
        ends(tmp_path / "disks")
        with pytest.raises(BoxLost, match="gone"):
            Sandbox.restore(loaded)
        with (tmp_path / "saved/disk").open("r+b") as file:
            file.seek(found.st_size - 4096)
            file.write(b"x")
        with pytest.raises(RuntimeUnavailable, match="damaged"):
            Snapshot.load(tmp_path / "saved")
        ends(tmp_path / "disks")

    def test_machines_of_a_pool(self, spec: dict[str, Any], tmp_path: Path) -> None:
        with Pool(size=2, **spec) as pool:
            for _ in range(3):
                with pool.claim() as claimed:
                    assert said(claimed, "ls /tmp; echo x > /tmp/x") == ""
        ends(tmp_path / "disks")


class TestRefused:
    def test_more_than_the_host_has_room_for(self, spec: dict[str, Any]) -> None:
        with pytest.raises(SetupFailed, match="disk can't be made") as caught:
            Sandbox(**{**spec, "disk_mib": 16_000_000})
        assert "IMMURE_DISKS" in (caught.value.hint or "")

    def test_a_folder_in_memory(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, pytest.raises(RuntimeUnavailable) as caught:
            monkeypatch.setenv("IMMURE_DISKS", folder)
            Sandbox(**spec)
        assert "in memory" in (caught.value.have or "")
        with Sandbox(**{**spec, "disk_mib": None}) as box:
            assert box.exec(["/bin/true"]).ok

    def test_without_what_formats_it(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("immure.host.disks._formatter", lambda: None)
        with pytest.raises(RuntimeUnavailable, match="mke2fs") as caught:
            Sandbox(**spec)
        assert "e2fsprogs" in (caught.value.hint or "")

    def test_a_kernel_that_lacks_the_file_system(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine_space, "FORMAT", "bcachefs")
        with pytest.raises(RuntimeUnavailable, match="disk of its own") as caught:
            Sandbox(**spec, env={"A": "another kernel"})
        assert os.environ["IMMURE_KERNEL"] in (caught.value.have or "")
        assert "IMMURE_KERNEL" in (caught.value.hint or "")


@contextmanager
def small_file_system(folder: Path, mib: int) -> Iterator[Path]:
    file, place = folder / "file-system", folder / "mounted"
    place.mkdir()
    with file.open("xb") as made:
        made.truncate(mib * MIB)
    subprocess.run(["/sbin/mke2fs", "-q", "-m", "0", str(file)], check=True)
    subprocess.run(["mount", "-o", "loop", str(file), str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.root
def test_a_host_without_room_is_an_error_in_the_box(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its room is taken by others meanwhile. The machine does not stand still; what can't be kept is an error."""
    write = "dd if=/dev/zero of=/tmp/large bs=1M count=200 conv=fsync"
    with small_file_system(tmp_path, 400) as place:
        monkeypatch.setenv("IMMURE_DISKS", str(place))
        with Sandbox(**{**spec, "disk_mib": 300}) as box:
            with (place / "others").open("xb") as file:
                os.posix_fallocate(file.fileno(), 0, 320 * MIB)
            assert "Input/output error" in said(box, write)
            assert box.exec(["/bin/true"]).ok
            assert box.exec(["/bin/cat"], stdin=b"it goes on").stdout == b"it goes on"
        ends(place)
        (place / "others").unlink()
        with Sandbox(**{**spec, "disk_mib": 300}) as box:
            assert "error" not in said(box, write), "the control"
            assert box.files.stat("/tmp/large").size_bytes == 200 * MIB
        ends(place)
