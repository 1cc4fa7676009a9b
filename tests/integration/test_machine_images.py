"""Folders packed for machines: by their content, in a box, and once."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from immure import RuntimeUnavailable, SetupFailed
from immure.engine import machine_images as images
from immure.engine.machine_images import first_root, packed_folder
from immure.host.content import content_sha256

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
    monkeypatch.setattr(images, "_pack", None)
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
    before = content_sha256(str(folder))
    assert content_sha256(str(folder)) == before
    # Older kernels tell time by ticks of some milliseconds.
    time.sleep(0.02)
    change(folder)  # type: ignore[operator]
    assert content_sha256(str(folder)) != before


def test_names_of_any_bytes_count(folder: Path) -> None:
    before = content_sha256(str(folder))
    (folder / "usr" / os.fsdecode(b"\xff\n")).mkdir()
    assert content_sha256(str(folder)) != before


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
    monkeypatch.setattr(images, "_MOST", 2)
    made = []
    for number in range(4):
        (folder / "usr/number").write_text(str(number) * (number + 1))
        made.append(packed_folder(str(folder)))
        os.utime(made[-1], (number, number))
    assert [one.exists() for one in made] == [False, False, True, True]


def test_what_a_killed_caller_left_is_removed(folder: Path) -> None:
    packed_folder(str(folder))
    place = Path(os.environ["XDG_CACHE_HOME"], "immure/images")
    (place / ".old.d").mkdir()
    for name in (".old.d/image", ".old", ".new"):
        (place / name).write_bytes(b"part")
    for name in (".old.d", ".old"):
        os.utime(place / name, (1, 1))
    (folder / "usr/more").touch()
    packed_folder(str(folder))
    assert [one.name for one in place.glob(".*")] == [".new"], "one may be under way"


def test_the_first_root_is_made_once() -> None:
    first = first_root()
    assert first.read_bytes().startswith(b"070701")
    assert (first_root(), first.stat().st_ino) == (first, first_root().stat().st_ino)
