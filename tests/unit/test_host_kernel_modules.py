"""Which modules a distribution's kernel needs for a machine, and in which order."""

from __future__ import annotations

import gzip
import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from immure.host.facts import Missing
from immure.host.kernel_modules import NEEDED, module_content, modules_of

VERSION = "6.1.0-1-cloud"


def kernel_at(path: Path, version: str = VERSION) -> Path:
    """The beginning of a bzImage, as far as it tells its version."""
    header = bytearray(0x1000)
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x20E, 0x400)
    told = f"{version} (somebody@somewhere) #1".encode()
    header[0x600 : 0x600 + len(told)] = told
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header)
    return path


def module(depends: str = "", softdep: str = "") -> bytes:
    told = f"\0license=GPL\0depends={depends}\0" + (f"softdep=pre: {softdep}\0" if softdep else "")
    return b"\x7fELF" + told.encode() + b"name=x\0"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    place = tmp_path / "lib/modules" / VERSION
    (place / "kernel").mkdir(parents=True)
    (place / "modules.builtin").write_text("kernel/fs/overlayfs/overlay.ko\nkernel/crypto/crc32c_generic.ko\n")
    for name in NEEDED:
        if name != "overlay":
            (place / f"kernel/{name}.ko").write_bytes(module("virtio,virtio_ring" if "virtio" in name else "libcrc32c"))
    (place / "kernel/virtio.ko").write_bytes(module("virtio_ring"))
    (place / "kernel/virtio_ring.ko").write_bytes(module())
    (place / "kernel/libcrc32c.ko").write_bytes(module(softdep="crc32c"))
    return place


def names(found: tuple[str, ...] | Missing) -> list[str]:
    assert not isinstance(found, Missing), found
    return [Path(one).name.split(".")[0] for one in found]


@pytest.mark.parametrize("where", ["boot/vmlinuz", f"lib/modules/{VERSION}/vmlinuz"])
def test_each_comes_after_what_it_needs(tmp_path: Path, tree: Path, where: str) -> None:
    order = names(modules_of(str(kernel_at(tmp_path / where))))
    assert order == ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk", "virtio_console", "libcrc32c", "erofs"]


def test_what_is_welcome_and_what_does_its_work_under_another_name(tmp_path: Path, tree: Path) -> None:
    (tree / "modules.builtin").write_text("kernel/fs/overlayfs/overlay.ko\n")
    (tree / "kernel/crc32c_generic.ko").write_bytes(module())
    (tree / "kernel/virtio-rng.ko").write_bytes(module("virtio"))
    order = names(modules_of(str(kernel_at(tmp_path / "boot/vmlinuz"))))
    assert order.index("crc32c_generic") < order.index("libcrc32c")
    assert order[-1] == "virtio-rng"


def test_modules_that_need_each_other_come_to_an_end(tmp_path: Path, tree: Path) -> None:
    (tree / "kernel/virtio_ring.ko").write_bytes(module("virtio"))
    assert "virtio_mmio" in names(modules_of(str(kernel_at(tmp_path / "boot/vmlinuz"))))


def test_one_that_is_missing_is_named(tmp_path: Path, tree: Path) -> None:
    (tree / "kernel/erofs.ko").unlink()
    found = modules_of(str(kernel_at(tmp_path / "boot/vmlinuz")))
    assert isinstance(found, Missing)
    assert "erofs" in found.need
    assert str(tree) in found.have


def test_a_disk_takes_one_more(tmp_path: Path, tree: Path) -> None:
    kernel = str(kernel_at(tmp_path / "boot/vmlinuz"))
    without = names(modules_of(kernel))
    lacking = modules_of(kernel, with_disk=True)
    assert isinstance(lacking, Missing)
    assert "ext4" in lacking.need
    assert "disk_mib" in (lacking.command or "")
    (tree / "kernel/ext4.ko").write_bytes(module("mbcache,jbd2"))
    (tree / "kernel/mbcache.ko").write_bytes(module())
    (tree / "kernel/jbd2.ko").write_bytes(module())
    assert names(modules_of(kernel, with_disk=True)) == [*without, "mbcache", "jbd2", "ext4"]
    assert names(modules_of(kernel)) == without, "a machine without a disk takes no time for it"


def test_a_kernel_without_modules(tmp_path: Path, tree: Path) -> None:
    assert modules_of(str(kernel_at(tmp_path / "boot/other", version="7.0"))) == ()
    (tmp_path / "boot/vmlinux").write_bytes(b"\x7fELF" + bytes(100))
    assert modules_of(str(tmp_path / "boot/vmlinux")) == ()


def test_packed_ones(tmp_path: Path, tree: Path) -> None:
    content = (tree / "kernel/erofs.ko").read_bytes()
    (tree / "kernel/erofs.ko").unlink()
    zstd = subprocess.run(["zstd", "-cq"], input=content, capture_output=True, check=True).stdout
    for suffix, packed in ((".xz", lzma.compress(content)), (".gz", gzip.compress(content)), (".zst", zstd)):
        place = tree / f"kernel/erofs.ko{suffix}"
        place.write_bytes(packed)
        found = modules_of(str(kernel_at(tmp_path / "boot/vmlinuz")))
        assert names(found)[-2:] == ["libcrc32c", "erofs"]
        assert module_content(str(place)) == content
        place.write_bytes(b"broken" + packed)
        with pytest.raises((ValueError, OSError)):
            module_content(str(place))
        place.unlink()
