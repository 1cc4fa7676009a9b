"""Folders packed for machines: by their content, in a box, and once."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immure import RuntimeUnavailable, SetupFailed
from immure.engine import image_store, notices
from immure.engine import machine_images as images
from immure.engine.image_store import kept
from immure.engine.machine_images import first_root, packed_folder, packed_host
from immure.host.content import content_sha256, quick_content
from immure.host.facts import HostImage
from immure.host.identity import identity_of

pytestmark = pytest.mark.rootless


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(images.PACKER) is None:
        pytest.skip(f"{images.PACKER} is not installed: tools/install_test_packages.sh")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    (place / "usr/bin").mkdir(parents=True)
    (place / "usr/bin/tool").write_bytes(b"#!/bin/sh\n")
    (place / "usr/bin/tool").chmod(0o755)
    (place / "usr/private").write_bytes(b"for its owner")
    (place / "usr/private").chmod(0o600)
    (place / "bin").symlink_to("usr/bin")
    return place


def shown(image: Path, path: str) -> str:
    told = subprocess.run(["dump.erofs", f"--path={path}", str(image)], capture_output=True, text=True, check=True)
    return told.stdout


def test_what_is_in_it(folder: Path) -> None:
    image = packed_folder(str(folder))
    assert stat.S_IMODE(image.stat().st_mode) == 0o444
    assert "Access: 0755" in shown(image, "/usr/bin/tool")
    assert "Size: 13 " in shown(image, "/usr/private").replace("  ", " ")
    assert "Uid: 0   Gid: 0" in shown(image, "/usr/private"), "everything is the machine's root's"
    assert "symlink" in shown(image, "/bin").lower()


def test_it_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed_folder(str(folder))
    monkeypatch.setattr(images, "_pack_folder", None)
    assert packed_folder(str(folder)) == first


def change_mode(folder: Path) -> None:
    (folder / "usr/bin/tool").chmod(0o644)


def change_content(folder: Path) -> None:
    (folder / "usr/bin/tool").write_bytes(b"#!/bin/no\n")


def change_content_and_hide_it(folder: Path) -> None:
    place = folder / "usr/bin/tool"
    seen = place.stat()
    place.write_bytes(b"#!/bin/no\n")
    os.utime(place, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert place.stat().st_mtime_ns == seen.st_mtime_ns


def change_link(folder: Path) -> None:
    (folder / "bin").unlink()
    (folder / "bin").symlink_to("usr")


def add_deep(folder: Path) -> None:
    (folder / "usr/bin/more").touch()


def take_away(folder: Path) -> None:
    (folder / "usr/private").unlink()


@pytest.mark.parametrize(
    "change", [change_mode, change_content, change_content_and_hide_it, change_link, add_deep, take_away]
)
def test_another_content_is_another_image(folder: Path, change: object) -> None:
    before = content_sha256(str(folder)), quick_content([str(folder)])
    assert (content_sha256(str(folder)), quick_content([str(folder)])) == before
    # Older kernels tell time by ticks of some milliseconds.
    time.sleep(0.02)
    change(folder)  # type: ignore[operator]
    assert content_sha256(str(folder)) != before[0]
    assert quick_content([str(folder)]) != before[1]


def test_names_of_any_bytes_count(folder: Path) -> None:
    before = content_sha256(str(folder)), quick_content([str(folder)])
    (folder / "usr" / os.fsdecode(b"\xff\n")).mkdir()
    assert content_sha256(str(folder)) != before[0]
    assert quick_content([str(folder)]) != before[1]


def test_what_can_not_be_read_is_an_error(folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(folder / "usr/private", 12345, 12345)
    else:
        (folder / "usr/private").chmod(0)
    with pytest.raises(SetupFailed, match="can't be packed") as caught:
        packed_folder(str(folder))
    assert caught.value.have
    left = list(Path(os.environ["XDG_CACHE_HOME"], "immure/images").iterdir())
    assert left == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        packed_folder(str(tmp_path / "none"))


def test_no_packer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "PACKER", "mkfs.none")
    with pytest.raises(RuntimeUnavailable, match="erofs-utils"):
        packed_folder(str(folder))


def test_a_cache_of_somebody_else_is_not_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache/immure").mkdir(parents=True, mode=0o777)
    (tmp_path / "cache/immure").chmod(0o777)
    with pytest.raises(RuntimeUnavailable, match="XDG_CACHE_HOME"):
        packed_folder(str(folder))


def test_old_ones_make_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(image_store.MOST, "erofs", 2)
    made = []
    for number in range(4):
        (folder / "usr/number").write_text(str(number) * (number + 1))
        made.append(packed_folder(str(folder)))
        os.utime(made[-1], (number, number))
    assert [one.exists() for one in made] == [False, False, True, True]


def test_what_a_killed_caller_left_is_removed(folder: Path) -> None:
    packed_folder(str(folder))
    for name in (".left.erofs.part", ".under_way.erofs.part"):
        (place_of_all() / name).mkdir()
        (place_of_all() / name / "image").write_bytes(b"part")
        (place_of_all() / name).with_suffix(".lock").touch()
    with (place_of_all() / ".under_way.erofs.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packed_folder(str(folder))
        assert left() == {".under_way.erofs.part", ".under_way.erofs.lock"}
    packed_folder(str(folder))
    assert left() == set()


def test_one_that_is_used_again_is_the_same_file_and_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(image_store.MOST, "erofs", 2)
    first = packed_folder(str(folder))
    before = identity_of(str(first))
    for number in range(3):
        assert packed_folder(str(folder)) == first
        assert identity_of(str(first)) == before
        other = folder.with_name(f"other{number}")
        shutil.copytree(folder, other)
        (other / "usr/number").write_text(str(number))
        packed_folder(str(other))
    assert first.exists()


def left() -> set[str]:
    """What is under way, or was left."""
    return {one.name for one in place_of_all().glob(".*") if one.suffix != ".used"}


def place_of_all() -> Path:
    return Path(os.environ["XDG_CACHE_HOME"], "immure/images")


class TestTwoAtOnce:
    def test_one_makes_it_and_the_others_wait(self, told: list[str]) -> None:
        made: list[int] = []
        begun, go_on = threading.Event(), threading.Event()

        def make(place: Path) -> None:
            made.append(1)
            begun.set()
            assert go_on.wait(20)
            place.write_bytes(b"made")

        threads = [threading.Thread(target=kept, args=("one.erofs", make)) for _ in range(3)]
        for one in threads:
            one.start()
        assert begun.wait(20)
        until = time.monotonic() + 20
        while len(told) < 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        go_on.set()
        for one in threads:
            one.join()
        assert made == [1]
        assert all("waiting for another process" in one for one in told)
        assert [one.name for one in place_of_all().iterdir() if one.suffix != ".used"] == ["one.erofs"]

    def test_who_waits_makes_it_where_the_first_one_fails(self) -> None:
        def fail(place: Path) -> None:
            place.write_bytes(b"half")
            raise OSError(28, "full")

        with pytest.raises(OSError, match="full"):
            kept("one.erofs", fail)
        assert list(place_of_all().iterdir()) == []
        assert kept("one.erofs", lambda place: place.write_bytes(b"made")).read_bytes() == b"made"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(notices, "listener", found.append)
    return found


@pytest.fixture
def large(folder: Path) -> Path:
    """One that takes seconds to pack."""
    with (folder / "usr/large").open("wb") as file:
        file.truncate(3 << 30)
    return folder


class TestWhatTakesLong:
    def test_it_is_said(self, folder: Path, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        packed_folder(str(folder))
        assert told == []
        (folder / "usr/more").touch()
        monkeypatch.setattr(notices, "_PATIENCE_S", 0.001)
        packed_folder(str(folder))
        assert len(told) == 1
        assert str(folder) in told[0]

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_it_can_be_ended(self, large: Path, number: signal.Signals) -> None:
        program = f"from immure.engine.machine_images import packed_folder; packed_folder({str(large)!r})"
        packing = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not list(place_of_all().glob(".*.part/image")):
            assert packing.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        packing.send_signal(number)
        assert packing.wait(30) != 0
        (large / "usr/large").unlink()
        packed_folder(str(large))
        assert len(list(place_of_all().iterdir())) == 1, "what it had made is gone"


@pytest.mark.root
class TestAFullDisk:
    @pytest.fixture(autouse=True)
    def small(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        place = tmp_path / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=True)
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        yield
        subprocess.run(["umount", "-l", place], check=True)

    def test_it_is_an_error_that_says_so(self, folder: Path) -> None:
        (folder / "usr/much").write_bytes(os.urandom(4 << 20))
        with pytest.raises(SetupFailed, match="does not fit") as caught:
            packed_folder(str(folder))
        assert "MiB free" in (caught.value.have or "")
        assert "XDG_CACHE_HOME" in (caught.value.hint or "")
        assert list(place_of_all().iterdir()) == []
        (folder / "usr/much").unlink()
        assert packed_folder(str(folder)).exists(), "the control"


def test_the_host_s_is_made_once_for_each_content(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def pack(shown: HostImage, place: Path) -> None:
        made.append(place)
        place.write_bytes(b"packed")

    monkeypatch.setattr(images, "_pack_host", pack)
    copied = folder / "copied"
    copied.write_bytes(b"one")
    shown = HostImage(links=(), folders=(str(folder / "usr"),), copies=(str(copied),))
    first = packed_host(shown)
    assert packed_host(shown) == first
    time.sleep(0.02)
    copied.write_bytes(b"two")
    second = packed_host(shown)
    (folder / "usr/bin/tool").write_bytes(b"changed")
    third = packed_host(shown)
    assert len({first, second, third}) == len(made) == 3
    assert [one.exists() for one in (first, second, third)] == [False, True, True]


def test_the_first_root_is_made_once() -> None:
    first = first_root()
    assert first.read_bytes().startswith(b"070701")
    assert (first_root(), first.stat().st_ino) == (first, first_root().stat().st_ino)
