"""Folders and files of the host in a machine: on a disk of its own, which is packed before the start."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from immure import Sandbox, SetupFailed, SpecError, run

pytestmark = pytest.mark.rootless


@pytest.fixture(autouse=True)
def named(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))


@pytest.fixture
def spec(image: Path) -> dict[str, Any]:
    return {"runtime": "qemu", "level": "L3", "image": str(image)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    (place / "below").mkdir(parents=True)
    (place / "file").write_bytes(b"content\n")
    (place / "file").chmod(0o600)
    (place / "below/other").write_bytes(b"other\n")
    place.chmod(0o700)
    return place


def said(spec: dict[str, Any], script: str, **keywords: Any) -> str:
    return run(["/bin/sh", "-c", f"exec 2>&1; {script}"], **{**spec, **keywords}).stdout.text()


def test_what_is_closed_to_others_is_the_box_s_user_s(spec: dict[str, Any], source: Path) -> None:
    told = said(spec, "cat file below/other; id -u", mounts=[(source, "/work", "ro")])
    assert told == "content\nother\n1000\n", "and it is the working directory"
    assert said({**spec, "user": 7}, "cat file; id -u", mounts=[(source, "/work", "ro")]) == "content\n7\n"


def test_nobody_writes_to_it(spec: dict[str, Any], source: Path) -> None:
    source.chmod(0o755)
    (source / "file").chmod(0o666)
    with Sandbox(mounts=[(source, "/work", "ro"), {"tmpfs": "/own"}], **spec) as box:
        for user in (0, 1000):
            script = "exec 2>&1; touch /work/x; touch /work/file; touch /own/x"
            told = box.exec(["/bin/sh", "-c", script], user=user).stdout.text()
            assert told.count("Read-only file system") == 2, told
        assert box.exec(["/bin/ls", "/own"]).stdout == b"x\n", "the control"
        (clause,) = [one for one in box.exec(["/bin/true"]).report if one.clause == "files.mounts[0]"]
    assert clause.got == "approximated"
    assert sorted(one.name for one in source.iterdir()) == ["below", "file"]


def test_files_and_mounts_in_each_other(spec: dict[str, Any], source: Path, tmp_path: Path) -> None:
    single = tmp_path / "single"
    single.write_bytes(b"one file\n")
    mounts = [
        (source, "/tmp/deep/er", "ro"),
        (single, "/tmp/deep/er/file", "ro"),
        (single, "/single", "ro"),
        (source, "/again", "ro"),
    ]
    script = "cat /tmp/deep/er/file /single /again/file /tmp/deep/er/below/other; ls /.immure/mounts"
    assert said(spec, script, mounts=mounts) == "one file\none file\ncontent\nother\n"


def test_it_is_as_it_was_before_the_start(spec: dict[str, Any], source: Path) -> None:
    with Sandbox(mounts=[(source, "/work", "ro")], **spec) as box:
        (source / "file").write_bytes(b"changed\n")
        assert box.exec(["/bin/cat", "file"]).stdout == b"content\n"
    assert said(spec, "cat file", mounts=[(source, "/work", "ro")]) == "changed\n"


def test_names_and_links_of_any_kind(spec: dict[str, Any], source: Path) -> None:
    name = b"new\nline \xff --exclude-path=file"
    (source / os.fsdecode(name)).write_bytes(b"odd\n")
    (source / "out").symlink_to("/etc/hostname")
    (source / "up").symlink_to("../../../../../../etc/hostname")
    with Sandbox(mounts=[(source, "/work", "ro")], **spec) as box:
        assert box.exec(["/bin/cat", name]).stdout == b"odd\n"
        for link in ("out", "up"):
            assert not box.exec(["/bin/cat", link]).ok, "the image has no such file"


def test_what_can_not_be_read_is_an_error(spec: dict[str, Any], source: Path) -> None:
    if os.geteuid() == 0:
        os.chown(source / "file", 12345, 12345)
    else:
        (source / "file").chmod(0)
    with pytest.raises(SetupFailed, match="can't be packed") as caught:
        run(["/bin/true"], mounts=[(source, "/work", "ro")], **spec)
    assert str(source) in caught.value.message


def test_a_place_that_the_image_does_not_have(spec: dict[str, Any], source: Path) -> None:
    with pytest.raises(SpecError, match="no folder of the image"):
        run(["/bin/true"], mounts=[(source, "/etc/none", "ro")], **spec)


def test_the_calling_interpreter(source: Path) -> None:
    (source / "main.py").write_text("import sys; print(sys.prefix)")
    result = run(
        [sys.executable, "main.py"],
        runtime="qemu",
        level="L3",
        preset="python",
        mounts=[(source, "/job", "ro")],
        workdir="/job",
    )
    assert result.stdout.text() == f"{sys.prefix}\n", result.stderr
