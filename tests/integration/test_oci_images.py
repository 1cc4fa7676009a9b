"""Images out of OCI layouts: put together in a box, once, for any runtime."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immure import Sandbox, SpecError, run
from immure.engine import oci_images
from immure.engine.oci_images import unpacked_layout
from layouts import INDEX, LAYER, Layout, archive, archive_of, entry, folder, hard_link, layout_of, link
from machine.machines import make_image

pytestmark = pytest.mark.rootless


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[bytes]:
    if shutil.which("busybox") is None:
        pytest.skip("busybox is not installed: tools/install_test_packages.sh")
    yield archive_of(make_image(tmp_path / "base"))


def unpacked(layout: Layout, tag: str | None = None) -> Path:
    return unpacked_layout(str(layout.place), tag, "x86_64")


def shown(root: Path) -> dict[str, str]:
    """Each path, with what a file holds or where a link leads."""
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = "/" if path.is_dir() else path.read_text()
    return found


class TestABox:
    def test_it_runs_in_it(self, place: Path, base: bytes) -> None:
        layout = layout_of(place, base, archive(entry("etc/greeting", b"hello\n")))
        with Sandbox(image=str(place), workdir="/") as box:
            assert box.exec(["/bin/cat", "/etc/greeting"]).stdout == b"hello\n"
            assert box.evidence().awarded == "L2"
        assert run(["/bin/id", "-u"], image=str(layout.place), workdir="/").stdout == b"1000\n"

    def test_another_image_of_that_name_is_seen(self, place: Path, base: bytes) -> None:
        said = []
        for text in (b"one", b"two"):
            shutil.rmtree(place, ignore_errors=True)
            layout_of(place, base, archive(entry("etc/which", text)))
            said.append(bytes(run(["/bin/cat", "/etc/which"], image=str(place), workdir="/").stdout))
        assert said == [b"one", b"two"]

    def test_a_name_in_the_layout(self, place: Path, base: bytes) -> None:
        layout = Layout(place)
        for tag in ("one", "two"):
            layout.add(layout.manifest(base, archive(entry("etc/which", tag.encode()))), tag=tag)
        assert run(["/bin/cat", "/etc/which"], image=f"{place}:two", workdir="/").stdout == b"two"
        with pytest.raises(SpecError, match="several images") as caught:
            run(["/bin/true"], image=str(place))
        assert (caught.value.have, "FOLDER:NAME" in (caught.value.hint or "")) == ("one, two", True)
        with pytest.raises(SpecError, match="no image"):
            run(["/bin/true"], image=f"{place}:three")


class TestLayers:
    def test_files_folders_and_links(self, place: Path) -> None:
        root = unpacked(
            layout_of(
                place,
                archive(
                    folder("./"),
                    folder("a", mode=0o555),
                    entry("a/file", b"one", mode=0o4755),
                    entry("./deep/er/file", b"two"),
                    link("a/link", "../../../etc/passwd"),
                    hard_link("second", "a/file"),
                    entry("closed", b"three", mode=0),
                ),
            )
        )
        assert shown(root)["a/link"] == "-> ../../../etc/passwd"
        assert (root / "second").stat().st_ino == (root / "a/file").stat().st_ino
        assert stat.S_IMODE((root / "a/file").stat().st_mode) == 0o755, "setuid bits stay behind"
        assert stat.S_IMODE((root / "a").stat().st_mode) == 0o755, "its owner can remove it"
        assert stat.S_IMODE((root / "closed").stat().st_mode) == 0o400
        assert (root / "a/file").stat().st_mtime == 1_000_000
        assert {one.stat(follow_symlinks=False).st_uid for one in root.rglob("*")} == {os.geteuid()}

    @pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
    def test_compressions(self, place: Path, compression: str) -> None:
        if compression == "zstd" and shutil.which("zstd") is None:
            pytest.skip("zstd is not installed: tools/install_test_packages.sh")
        content = os.urandom(3 << 20).hex()
        layout = layout_of(place, archive(entry("file", content.encode())), compression=compression)
        assert shown(unpacked(layout)) == {"file": content}

    def test_later_layers_replace_and_take_away(self, place: Path) -> None:
        lower = archive(
            entry("file", b"old"),
            entry("gone", b"old"),
            entry("was/a/folder", b"old"),
            entry("opaque/old", b"old"),
            entry("opaque/below/old", b"old"),
            entry("kept/old", b"old"),
            link("usr", "real"),
            folder("real"),
        )
        upper = archive(
            entry("file", b"new"),
            entry(".wh.gone"),
            entry("was/a", b"a file now"),
            entry("opaque/new", b"new"),
            entry("opaque/.wh..wh..opq"),
            entry("opaque/below/new", b"new"),
            entry("kept/new", b"new"),
            entry("usr/through", b"the link"),
            entry("again", b"new"),
            entry(".wh.again"),
        )
        assert shown(unpacked(layout_of(place, lower, archive(), upper))) == {
            "file": "new",
            "was": "/",
            "was/a": "a file now",
            "opaque": "/",
            "opaque/new": "new",
            "opaque/below": "/",
            "opaque/below/new": "new",
            "kept": "/",
            "kept/old": "old",
            "kept/new": "new",
            "usr": "-> real",
            "real": "/",
            "real/through": "the link",
            "again": "new",
        }

    def test_devices_of_its_dev_are_left_out(self, place: Path) -> None:
        device = entry("dev/console", type=tarfile.CHRTYPE, devmajor=5, devminor=1)
        assert shown(unpacked(layout_of(place, archive(device, entry("a", b"1"))))) == {"dev": "/", "a": "1"}

    def test_it_is_made_once(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        layout = layout_of(place, archive(entry("file", b"1")))
        first = unpacked(layout)
        monkeypatch.setattr(oci_images, "_unpack", None)
        assert unpacked(layout) == first


class TestHostile:
    """Nothing of it is left, and nothing outside is touched."""

    @pytest.fixture(autouse=True)
    def outside(self, tmp_path: Path) -> Iterator[None]:
        yield
        images = tmp_path / "cache/immure/images"
        assert not images.exists() or list(images.iterdir()) == []
        assert not (tmp_path / "cache/immure/evil").exists()

    @pytest.mark.parametrize(
        ("entries", "said"),
        [
            ([entry("../evil", b"x")], "leads out"),
            ([entry("a/../../../evil", b"x")], "leads out"),
            ([entry(".wh...", b"")], "leads out"),
            ([hard_link("file", "../../../etc/passwd")], "leads out"),
            ([hard_link("file", "/etc/hostname")], "which is no file"),
            ([link("loop", "loop"), entry("loop/x", b"x")], "too many links"),
            ([link("one", "two"), link("two", "one"), entry("one/x", b"x")], "too many links"),
            ([entry("file", b"x"), entry("file/x", b"x")], "through a file"),
            ([entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "device"),
            ([entry("disk", type=tarfile.BLKTYPE, devmajor=8)], "device"),
            ([entry("pipe", type=tarfile.FIFOTYPE)], "device"),
            ([entry("/".join(["d"] * 300), b"x")], "too deep"),
            ([entry("/".join(["d" * 200] * 30), b"x")], "too long"),
        ],
        ids=lambda one: one if isinstance(one, str) else None,
    )
    def test_entries(self, place: Path, entries: list[Any], said: str) -> None:
        with pytest.raises(SpecError, match="can't be unpacked") as caught:
            unpacked(layout_of(place, archive(*entries)))
        assert said in (caught.value.have or "")

    def test_a_content_that_is_not_what_its_digest_says(self, place: Path) -> None:
        layout = layout_of(place, archive(entry("file", b"1")))
        blob = layout.path_of(layout.layers[0])
        blob.write_bytes(blob.read_bytes()[:-8] + bytes(8))
        with pytest.raises(SpecError, match="can't be unpacked"):
            unpacked(layout)

    def test_a_blob_of_another_layer(self, place: Path) -> None:
        layout = layout_of(place, archive(entry("file", b"1")), compression="none")
        layout.path_of(layout.layers[0]).write_bytes(archive(entry("file", b"2")))
        with pytest.raises(SpecError) as caught:
            unpacked(layout)
        assert "not what its digest says" in (caught.value.have or "")

    def test_a_blob_with_more_behind_it(self, place: Path) -> None:
        layout = layout_of(place, archive(entry("file", b"1")))
        with layout.path_of(layout.layers[0]).open("ab") as blob:
            blob.write(b"more")
        with pytest.raises(SpecError, match="can't be unpacked"):
            unpacked(layout)

    def test_another_content_than_the_configuration_says(self, place: Path) -> None:
        rootfs = {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}
        layout = layout_of(place, archive(entry("file", b"1")), rootfs=rootfs)
        with pytest.raises(SpecError) as caught:
            unpacked(layout)
        assert "its content is not what its digest says" in (caught.value.have or "")

    def test_more_than_is_allowed(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(oci_images, "MOST_BYTES", 1 << 20)
        monkeypatch.setattr(oci_images, "MOST_ENTRIES", 4)
        large = layout_of(place / "large", archive(entry("file", bytes((1 << 20) + 1))))
        many = layout_of(place / "many", archive(*(entry(f"{number}") for number in range(5))))
        for layout, said in ((large, "larger than"), (many, "more entries")):
            with pytest.raises(SpecError) as caught:
                unpacked(layout)
            assert said in (caught.value.have or "")

    @pytest.mark.parametrize(
        "content", [b"", b"no tar", bytes(100), b"\xff" * 2048], ids=["empty", "text", "short", "ones"]
    )
    def test_no_archive(self, place: Path, content: bytes) -> None:
        with pytest.raises(SpecError, match="can't be unpacked"):
            unpacked(layout_of(place, content))

    def test_documents(self, place: Path) -> None:
        layout = layout_of(place, archive(entry("file", b"1")))
        manifest = layout.path_of(layout.manifests[0])
        good = manifest.read_bytes()
        for change in (lambda: manifest.write_bytes(good + b" "), manifest.unlink, lambda: os.mkfifo(manifest)):
            change()
            with pytest.raises(SpecError, match="of the layout"):
                unpacked(layout)
        manifest.unlink()
        manifest.symlink_to("/etc/passwd")
        with pytest.raises(SpecError, match="of the layout"):
            unpacked(layout)
        for name, text in (
            ("index.json", "{}"),
            ("index.json", "[" * 100_000),
            ("oci-layout", '{"imageLayoutVersion": "2"}'),
        ):
            (place / name).write_text(text)
            with pytest.raises(SpecError, match="can't be read"):
                unpacked(layout)


class TestPlatforms:
    @pytest.fixture
    def layout(self, place: Path) -> Layout:
        """An index of indexes, as registries have them."""
        layout = Layout(place)
        found = []
        for arch in ("amd64", "arm64"):
            platform = {"os": "linux", "architecture": arch}
            made = layout.manifest(archive(entry("arch", arch.encode())), platform=platform)
            found.append({**made, "platform": platform})
        attestation = layout.manifest(archive(entry("no", b"image")))
        found.append({**attestation, "platform": {"os": "unknown", "architecture": "unknown"}})
        layout.add(layout.document({"schemaVersion": 2, "manifests": found}, INDEX), tag="both")
        return layout

    def test_this_host_s_is_taken(self, layout: Layout) -> None:
        assert shown(unpacked(layout, "both")) == {"arch": "amd64"}
        assert shown(unpacked_layout(str(layout.place), None, "aarch64")) == {"arch": "arm64"}

    def test_none_for_this_host(self, layout: Layout) -> None:
        with pytest.raises(SpecError, match="no image for this host") as caught:
            unpacked_layout(str(layout.place), None, "riscv64")
        assert "linux/riscv64" in (caught.value.need or "")
        assert "linux/amd64" in (caught.value.have or "")

    def test_one_that_does_not_say_so_at_once(self, place: Path) -> None:
        layout = layout_of(place, archive(entry("a")), platform={"os": "windows", "architecture": "amd64"})
        with pytest.raises(SpecError, match="another platform"):
            unpacked(layout)

    def test_an_index_that_names_itself_in_vain(self, place: Path) -> None:
        layout = Layout(place)
        above = layout.manifest(archive(entry("a")))
        for _ in range(5):
            above = layout.document({"schemaVersion": 2, "manifests": [above]}, INDEX)
        layout.add(above)
        with pytest.raises(SpecError):
            unpacked(layout)

    def test_an_unknown_kind_of_layer(self, place: Path) -> None:
        layout = Layout(place)
        made = layout.manifest(archive(entry("a")))
        document = json.loads(layout.path_of(made).read_text())
        document["layers"][0]["mediaType"] = LAYER + "+lzma"
        layout.add(layout.document(document, made["mediaType"]))
        with pytest.raises(SpecError, match="unknown kind") as caught:
            unpacked(layout)
        assert "lzma" in (caught.value.have or "")
