"""What is read of an image's folder, and that its links lead nowhere on this host."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest

from immure.engine import prepare
from immure.engine.sources import look_at_image, look_at_sources
from immure.errors import SpecError
from immure.host.image import is_host_root, read_image
from immure.host.listing import MOST, OWN, list_image
from immure.plan.operations import Bind
from immure.spec.loading import convert
from immure.spec.models import SandboxSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "img"
    (place / "usr" / "lib").mkdir(parents=True)
    (place / "usr" / "file").write_text("x")
    (place / "usr" / "out").symlink_to("/etc")
    (place / "bin").symlink_to("usr/bin")
    (place / "init").write_text("x")
    os.mkfifo(place / "fifo")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(place / "socket"))
    for name in OWN:
        (place / name).mkdir()
    return place


def spec_of(image: str, *targets: str) -> SandboxSpec:
    entries = [{"tmpfs": target} for target in targets]
    return convert({"image": image, "files": {"mounts": entries}}, SandboxSpec, path="$.spec")


def test_its_top_is_listed_without_what_boxes_have_of_their_own(folder: Path) -> None:
    found = {entry.name: (entry.kind, entry.target) for entry in read_image(str(folder), ()).entries}
    assert found == {
        "usr": ("folder", ""),
        "bin": ("link", "usr/bin"),
        "init": ("file", ""),
        "fifo": ("other", ""),
        "socket": ("other", ""),
    }


@pytest.mark.parametrize(
    ("target", "path", "kind"),
    [
        ("/usr", "/usr", "folder"),
        ("/usr/lib", "/usr/lib", "folder"),
        ("/usr/lib/no/such", "/usr/lib/no", "missing"),
        ("/usr/out/passwd", "/usr/out", "link"),
        ("/usr/file/x", "/usr/file", "file"),
        ("/init", "/init", "file"),
        ("/usr/a\0b", "/usr/a\0b", "missing"),
    ],
)
def test_where_mounts_are_to_stand_is_looked_at(target: str, path: str, kind: str, folder: Path) -> None:
    place = read_image(str(folder), [target]).places[target]
    assert (place.path, place.kind) == (path, kind)


def test_a_link_at_the_top_is_followed_as_the_box_does(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    places = read_image(str(folder), ["/bin/tool", "/tmp/x", "/proc/1", "/new", "/loop/x", "/", "/../x"]).places
    assert {target: place.path for target, place in places.items()} == {"/usr/bin/tool": "/usr/bin"}


def test_a_change_at_the_top_is_another_listing(folder: Path, tmp_path: Path) -> None:
    first = list_image(str(folder))
    assert list_image(str(folder)) == first
    (folder / "usr" / "lib" / "deep").write_text("not at the top")
    assert list_image(str(folder)) == first
    (folder / "new").mkdir()
    second = list_image(str(folder))
    assert second != first
    (folder / "new").rmdir()
    (folder / "new").mkdir()
    assert list_image(str(folder)) != second
    folder.rename(tmp_path / "away")
    folder.mkdir()
    (folder / "usr").mkdir()
    assert list_image(str(folder)) != first


def test_the_hosts_root_is_known_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    assert all(is_host_root(name) for name in ("/", "/usr/..", "/proc/self/root", str(tmp_path / "link")))
    assert not is_host_root(str(tmp_path))
    for name in ("/", "//", "./link", "/proc/self/root"):
        with pytest.raises(SpecError, match="root of this host") as caught:
            look_at_image(spec_of(name), tmp_path)
        assert caught.value.path == "$.spec.image"


def test_paths_start_at_the_base_or_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    for name in ("./img", "../" + folder.parent.name + "/img", "~/img", str(folder), f"{folder}/."):
        image = look_at_image(spec_of(name), folder.parent)
        assert image is not None
        assert image.path == str(folder)
    assert look_at_image(spec_of("host"), folder) is None


@pytest.mark.parametrize(
    "name", ["./missing", "./img/init", "./img/fifo", "./img/loop", "~nobody-at-all/img", "./a\0b"]
)
def test_an_image_that_is_none_is_told(name: str, folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    with pytest.raises(SpecError, match="can't be used") as caught:
        look_at_image(spec_of(name), folder.parent)
    assert caught.value.path == "$.spec.image"
    assert caught.value.need
    assert caught.value.have
    assert caught.value.hint


def test_a_top_without_end_is_refused(tmp_path: Path) -> None:
    for number in range(MOST + 5):
        (tmp_path / f"d{number}").mkdir()
    assert len(list_image(str(tmp_path))[1]) == MOST + 1
    with pytest.raises(SpecError, match="too large at its top"):
        look_at_image(spec_of(str(tmp_path)), tmp_path)


@pytest.mark.rootless
def test_what_the_caller_may_not_read_is_told(folder: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("rootless: root can read them")
    folder.chmod(0)
    (folder.parent / "closed").mkdir(0)
    source = {"files": {"mounts": [{"source": "./closed", "target": "/x"}]}}
    try:
        with pytest.raises(SpecError) as image:
            look_at_image(spec_of("./img"), folder.parent)
        with pytest.raises(SpecError) as mount:
            look_at_sources(convert(source, SandboxSpec, path="$.spec"), folder.parent)
    finally:
        folder.chmod(0o755)
    for caught, path in ((image, "$.spec.image"), (mount, "$.spec.files.mounts[0].source")):
        assert caught.value.path == path
        assert caught.value.have == "Permission denied"
        assert "run as a user who may" in str(caught.value.hint)


def test_a_changed_image_is_prepared_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hosts import make_facts

    monkeypatch.setattr(prepare, "host_facts", make_facts)
    monkeypatch.setattr(prepare, "_launches", {})
    spec = spec_of("./img")
    first = prepare.prepare(spec, base=folder.parent)
    assert prepare.prepare(spec, base=folder.parent) is first
    (folder / "more").mkdir()
    assert prepare.prepare(spec, base=folder.parent) is not first
    plan = prepare.plan_of(spec, base=folder.parent)
    assert f"{folder}/more" in {op.source for op in plan.template if isinstance(op, Bind)}
    assert (
        msgspec.msgpack.decode(plan.wire())["template"]
        == msgspec.msgpack.decode(prepare.prepare(spec, base=folder.parent).wire)["template"]
    )
