"""Disks of machines' own: files without names, with a file system that has as much room as was asked for."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import make_spec

from immure.errors import SetupFailed
from immure.host.disks import find_disks
from immure.host.facts import DiskFacts, Missing
from immure.plan.launch import Launch
from immure.plan.machine_space import disk_bytes, disk_of
from immure.runtimes.guest import disk
from immure.runtimes.guest.disk import _format, copied_disk, empty_disk, new_disk
from immure.runtimes.guest.memory import digest_of

#: What docs/machines.md says `df` may show more.
MORE_MIB, MORE_OF_IT = 2, 0.001
MIB = 1 << 20


def launch_of(mib: int | None, folder: Path, formatter: str | None = None) -> Launch:
    launch = Launch()
    found = DiskFacts(str(folder), formatter or str(shutil.which("mke2fs", path="/usr/sbin:/sbin")))
    launch.disk = disk_of(make_spec(level="L3", runtime="qemu", limits={"disk_mib": mib}), found)
    return launch


@contextmanager
def made(mib: int, folder: Path) -> Iterator[int]:
    fd = new_disk(launch_of(mib, folder))
    assert fd is not None
    try:
        yield fd
    finally:
        os.close(fd)


def open_here() -> set[str]:
    """The numbers of this process's descriptors."""
    return {one.name for one in Path("/proc/self/fd").iterdir()}


def told_of(fd: int) -> dict[str, str]:
    """What dumpe2fs says of it."""
    path = f"/proc/self/fd/{fd}"
    ended = subprocess.run(["/sbin/dumpe2fs", "-h", path], pass_fds=[fd], capture_output=True, text=True, check=True)
    return dict(re.findall(r"^(.+?): +(.+)$", ended.stdout, re.MULTILINE))


def room_mib(fd: int) -> float:
    """What `df` shows as available: ext4 keeps a fiftieth of all, and 16 MiB at most (ext4_calculate_resv_clusters)."""
    told = told_of(fd)
    kept = min(int(told["Block count"]) // 50, 4096)
    return (int(told["Free blocks"]) - kept) * 4096 / MIB


@pytest.fixture
def room_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is made takes little, whatever this host has free."""
    monkeypatch.setattr(disk, "_check_room", lambda folder, size: None)


@pytest.mark.usefixtures("room_for_all")
class TestSize:
    @pytest.mark.parametrize(
        "mib", [*range(1, 18), 31, 64, 119, 120, 121, 128, 240, 600, 800, 1000, 1024, 4096, 20_000]
    )
    def test_there_is_as_much_room_as_was_asked_for(self, tmp_path: Path, mib: int) -> None:
        with made(mib, tmp_path) as fd:
            assert mib <= room_mib(fd) <= mib * (1 + MORE_OF_IT) + MORE_MIB

    def test_of_a_large_one(self, tmp_path: Path) -> None:
        """Larger than this host's disk: formatted by itself."""
        mib = 4 * 1024 * 1024
        with made(1, tmp_path) as fd:
            os.ftruncate(fd, disk_bytes(make_spec(level="L3", runtime="qemu", limits={"disk_mib": mib})))
            _format(fd, "/sbin/mke2fs")
            assert mib <= room_mib(fd) <= mib * (1 + MORE_OF_IT) + MORE_MIB

    def test_it_takes_of_the_host_what_is_used(self, tmp_path: Path) -> None:
        with made(20_000, tmp_path) as fd:
            found = os.fstat(fd)
            assert found.st_size > 20_000 * MIB
            assert found.st_blocks * 512 < MIB

    def test_what_tmpfs_mounts_of_a_size_take_is_not_on_it(self) -> None:
        mounts = {"mounts": [{"tmpfs": "/a", "size_mib": 100}, {"tmpfs": "/b"}]}
        spec = make_spec(level="L3", runtime="qemu", limits={"disk_mib": 500}, files=mounts)
        assert disk_bytes(spec) == disk_bytes(make_spec(level="L3", runtime="qemu", limits={"disk_mib": 400}))

    def test_none_was_asked_for(self, tmp_path: Path) -> None:
        launch = launch_of(None, tmp_path)
        assert (launch.disk, new_disk(launch), empty_disk(launch)) == (None, None, None)


class TestContent:
    def test_each_is_the_same_and_has_no_name(self, tmp_path: Path) -> None:
        with made(64, tmp_path) as first, made(64, tmp_path) as second:
            assert digest_of(first) == digest_of(second)
            assert (os.fstat(first).st_nlink, os.fstat(second).st_nlink) == (0, 0)
            assert os.fstat(first).st_ino != os.fstat(second).st_ino
            os.pwrite(first, b"x", 60 * MIB)
            assert digest_of(first) != digest_of(second)
            assert list(tmp_path.iterdir()) == []

    def test_it_is_as_this_host_s_settings_are_not(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with made(64, tmp_path) as fd:
            before = digest_of(fd)
        (tmp_path / "mke2fs.conf").write_text("[defaults]\n base_features = has_journal\n blocksize = 1024\n")
        monkeypatch.setenv("MKE2FS_CONFIG", str(tmp_path / "mke2fs.conf"))
        monkeypatch.setenv("E2FSPROGS_FAKE_TIME", "77")
        with made(64, tmp_path) as fd:
            assert digest_of(fd) == before
            assert "has_journal" not in told_of(fd)["Filesystem features"]

    def test_a_copy_has_what_was_on_it_and_is_another(self, tmp_path: Path) -> None:
        launch = launch_of(64, tmp_path)
        with made(64, tmp_path) as fd:
            os.pwrite(fd, b"content", 50 * MIB)
            copy = copied_disk(fd, launch)
            assert copy is not None
            try:
                assert digest_of(copy) == digest_of(fd)
                assert os.fstat(copy).st_blocks * 512 < MIB, "holes stay holes"
                os.pwrite(copy, b"changed", 50 * MIB)
                assert os.pread(fd, 7, 50 * MIB) == b"content"
            finally:
                os.close(copy)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR])
    def test_on_a_file_system_without_nameless_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        opens, refused = os.open, []

        def opened(path: str, flags: int, *mode: int, **more: int | None) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                refused.append(path)
                raise OSError(number, os.strerror(number))
            return opens(path, flags, *mode, **more)

        monkeypatch.setattr(os, "open", opened)
        (tmp_path / ".immure-disk-left").touch()
        with made(64, tmp_path) as fd:
            assert os.fstat(fd).st_nlink == 0
            assert room_mib(fd) >= 64
        assert refused == [str(tmp_path)]
        assert list(tmp_path.iterdir()) == []


class TestRefused:
    def test_more_than_the_host_has_room_for(self, tmp_path: Path) -> None:
        with pytest.raises(SetupFailed, match="disk can't be made") as caught:
            new_disk(launch_of(16_000_000, tmp_path))
        assert caught.value.errno == errno.ENOSPC
        assert "MiB free" in (caught.value.have or "")
        assert "IMMURE_DISKS" in (caught.value.hint or "")
        assert list(tmp_path.iterdir()) == []

    def test_no_room_for_a_copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(target: int, source: int, offset: int, count: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        before = open_here()
        with made(64, tmp_path) as fd, monkeypatch.context() as patch:
            patch.setattr(os, "sendfile", full)
            with pytest.raises(SetupFailed, match="can't be copied") as caught:
                copied_disk(fd, launch_of(64, tmp_path))
        assert caught.value.errno == errno.ENOSPC
        assert open_here() == before

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(SetupFailed, match="can't be made") as caught:
            new_disk(launch_of(64, tmp_path / "none"))
        assert "No such file" in (caught.value.have or "")

    @pytest.mark.parametrize("formatter", ["/bin/false", "/nowhere/mke2fs"])
    def test_what_can_not_format(self, tmp_path: Path, formatter: str) -> None:
        before = open_here()
        with pytest.raises(SetupFailed, match="can't be formatted") as caught:
            new_disk(launch_of(64, tmp_path, formatter))
        assert "e2fsprogs" in (caught.value.hint or "")
        assert open_here() == before
        assert list(tmp_path.iterdir()) == []


class TestFound:
    def test_the_usual_folder_is_made_for_its_user_alone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("IMMURE_DISKS", raising=False)
        found = find_disks(str(tmp_path / "disks"))
        assert isinstance(found, DiskFacts)
        assert (found.folder, Path(found.formatter).name) == (str(tmp_path / "disks"), "mke2fs")
        assert (tmp_path / "disks").stat().st_mode & 0o777 == 0o700

    def test_a_named_one_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IMMURE_DISKS", str(tmp_path))
        found = find_disks(str(tmp_path / "disks"))
        assert isinstance(found, DiskFacts)
        assert found.folder == str(tmp_path / f"immure-{os.geteuid()}")
        assert [one.stat().st_mode & 0o777 for one in tmp_path.iterdir()] == [0o700]
        assert find_disks(None) == found

    @pytest.mark.parametrize("how", ["a mode", "a link"])
    def test_one_that_others_may_enter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
        place = tmp_path / f"immure-{os.geteuid()}"
        if how == "a mode":
            place.mkdir()
            place.chmod(0o711)
        else:
            (tmp_path / "other").mkdir(mode=0o700)
            place.symlink_to("other")
        monkeypatch.setenv("IMMURE_DISKS", str(tmp_path))
        found = find_disks(None)
        assert isinstance(found, Missing)
        assert found.have == f"{place}, which others may enter"

    def test_without_what_formats_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("immure.host.disks._SYSTEM_S", ())
        monkeypatch.setenv("PATH", str(tmp_path))
        found = find_disks(str(tmp_path / "disks"))
        assert isinstance(found, Missing)
        assert "mke2fs" in found.need
        assert "e2fsprogs" in (found.command or "")

    def test_a_plain_user_s_path_is_enough(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/usr/bin:/bin")
        assert isinstance(find_disks(str(tmp_path / "disks")), DiskFacts)

    def test_what_is_in_memory_is_no_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            monkeypatch.setenv("IMMURE_DISKS", folder)
            found = find_disks(None)
        assert isinstance(found, Missing)
        assert found.have.endswith("which is in memory (tmpfs)")

    def test_one_that_is_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IMMURE_DISKS", str(tmp_path / "none"))
        found = find_disks(None)
        assert isinstance(found, Missing)
        assert "No such file" in found.have
        assert "IMMURE_DISKS" in (found.command or "")

    def test_no_folder_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("IMMURE_DISKS", raising=False)
        found = find_disks(None)
        assert isinstance(found, Missing)
        assert "trusted" in found.have
