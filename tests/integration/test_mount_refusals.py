"""Sources and targets that can't be mounted: each gets an error that names it, and nothing outside is touched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from immure import ImmureError, SetupFailed, SpecError, run
from immure.engine.prepare import prepare
from immure.engine.spawners import spawner_for
from immure.runtimes.process.box import Box
from immure.spec.keywords import spec_from_keywords

from .command_line import CommandLine, shell

pytestmark = pytest.mark.rootless


def refusal(mounts: list[Any]) -> ImmureError:
    with pytest.raises(ImmureError) as caught:
        run(["true"], mounts=mounts)
    return caught.value


def test_a_source_that_is_missing(tmp_path: Path) -> None:
    error = refusal([(tmp_path / "missing", "/work")])
    assert isinstance(error, SpecError)
    assert error.path == "$.spec.files.mounts[0].source"
    assert str(tmp_path / "missing") in str(error)
    assert error.have == "No such file or directory"


def test_sources_that_are_neither_folder_nor_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for source in (tmp_path / "fifo", tmp_path / "socket", Path("/dev/null")):
            error = refusal([(source, "/work")])
            assert isinstance(error, SpecError)
            assert str(source) in str(error)


def test_a_source_that_is_a_loop(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert isinstance(refusal([(tmp_path / "loop", "/work")]), SpecError)


def test_a_source_that_is_a_link_shows_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "mark").write_text("mark")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "link-to-file").symlink_to("real/mark")
    assert run(["cat", "/work/mark"], mounts=[(tmp_path / "link", "/work")]).stdout == b"mark"
    assert run(["cat", "/work/f"], mounts=[(tmp_path / "link-to-file", "/work/f")], workdir="/").stdout == b"mark"


def box_of(**keywords: Any) -> Box:
    """A box that is asked for after `change` had its moment: between the look at the sources and the start."""
    change = keywords.pop("change")
    launch = prepare(spec_from_keywords(keywords), base=Path.cwd())
    change()
    return Box(spawner_for(launch), launch, one_shot=False)


def test_a_source_that_is_gone_before_the_start(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(SetupFailed) as caught:
        box_of(mounts=[(source, "/work")], change=source.rmdir)
    assert str(source) in str(caught.value)


def test_a_source_that_becomes_a_file_before_the_start(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()

    def replace() -> None:
        source.rmdir()
        source.write_text("now a file")

    with pytest.raises(SetupFailed) as caught:
        box_of(mounts=[(source, "/work")], change=replace)
    assert str(source) in str(caught.value)
    assert "folder" in str(caught.value)


def test_a_source_that_is_another_folder_by_the_start(tmp_path: Path) -> None:
    """The name decides, as it stands when the box starts; what it leads to is never mixed."""
    source = tmp_path / "source"
    for name in ("source", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mark").write_text(name)

    def replace() -> None:
        shutil.move(source, tmp_path / "away")
        shutil.move(tmp_path / "other", source)

    box = box_of(mounts=[(source, "/work")], change=replace)
    box.close()


def test_a_folder_that_is_renamed_while_boxes_start(tmp_path: Path) -> None:
    import threading

    one, two, source = tmp_path / "one", tmp_path / "two", tmp_path / "source"
    for folder in (one, two):
        folder.mkdir()
        (folder / "mark").write_text(folder.name)
    source.symlink_to("one")
    stop = threading.Event()

    def flip() -> None:
        number = 0
        while not stop.is_set():
            link = tmp_path / f"link{number}"
            link.symlink_to("two" if number % 2 else "one")
            link.rename(source)
            number += 1

    thread = threading.Thread(target=flip)
    thread.start()
    try:
        seen: set[bytes] = set()
        for _ in range(60):
            try:
                seen.add(bytes(run(["cat", "/work/mark"], mounts=[(source, "/work")]).stdout))
            except SetupFailed as error:
                # A plain user's spawner compares, and says so.
                assert "mount source" in str(error)
    finally:
        stop.set()
        thread.join()
    assert seen <= {b"one", b"two"}


@pytest.mark.parametrize(
    "target",
    ["/", "//", "/.", "/..", "/../etc", "/a/../..", "/a/../../etc", "relative", "", "/proc", "/proc/x", "/proc/sys",
     "/dev", "/dev/pts", "/dev/null", "/.immure", "/.immure/sentinel", "/./proc", "//proc//x"],
    ids=repr,
)  # fmt: skip
def test_targets_that_are_refused(target: str, tmp_path: Path) -> None:
    error = refusal([(tmp_path, target)])
    assert isinstance(error, SpecError)
    assert error.path.startswith("$.spec.files.mounts[0]")
    assert isinstance(refusal([{"tmpfs": target}]), SpecError)


def test_two_mounts_with_one_target(tmp_path: Path) -> None:
    for again in ("/work", "/work/", "//work", "/./work"):
        error = refusal([(tmp_path, "/work"), (tmp_path, again)])
        assert isinstance(error, SpecError)
        assert error.path == "$.spec.files.mounts[1].target"


def test_a_target_that_is_missing_in_a_mount(tmp_path: Path) -> None:
    error = refusal([(tmp_path, "/work"), (tmp_path, "/work/missing")])
    assert isinstance(error, SetupFailed)
    assert "/work/missing" in str(error)
    assert error.need
    assert error.hint
    assert not (tmp_path / "missing").exists(), "nothing is made in the user's folder"


def test_a_target_that_is_missing_below_usr(tmp_path: Path) -> None:
    error = refusal([(tmp_path, "/usr/no/such/place")])
    assert isinstance(error, SetupFailed)
    assert "/usr/no/such/place" in str(error)


def test_a_folder_on_a_file_and_a_file_on_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "sub").mkdir()
    for inner in ((tmp_path / "sub", "/work/file"), (tmp_path / "file", "/work/sub")):
        error = refusal([(tmp_path, "/work"), inner])
        assert isinstance(error, SetupFailed)
        assert inner[1] in str(error)


@pytest.mark.parametrize(
    "leads_to",
    ["/etc", "/", "/usr/bin", "..", "../..", "../../../../../../etc", "/proc", "/proc/self/root", "/proc/1/root",
     "/proc/1/cwd", "/proc/self/fd", "/proc/sys/kernel", "/dev", "/tmp", "/nowhere", "self"],
)  # fmt: skip
def test_a_target_behind_a_planted_link_is_refused(leads_to: str, tmp_path: Path) -> None:
    """A box that ran before may have left the link in a writable folder."""
    work, inner, host = tmp_path / "work", tmp_path / "inner", tmp_path / "etc"
    for folder in (work, inner, host):
        folder.mkdir()
    (inner / "mark").write_text("inner")
    (host / "untouched").write_text("x")
    (work / "self").symlink_to(leads_to)
    before = Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
    for over in ({"source": inner, "target": "/work/self", "access": "rw"}, {"tmpfs": "/work/self"},
                 {"tmpfs": "/work/self", "size_mib": 1}):  # fmt: skip
        error = refusal([(work, "/work", "rw"), over])
        assert isinstance(error, SetupFailed)
        assert "/work/self" in str(error)
        assert error.need == "a target without symbolic links on its way"
    assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == before, "nothing is mounted on the host"
    assert [path.name for path in host.iterdir()] == ["untouched"]
    assert {path.name for path in tmp_path.iterdir()} == {"work", "inner", "etc"}


def test_a_target_within_another_mount_is_reached_without_links(tmp_path: Path) -> None:
    """The control of the test above."""
    (tmp_path / "work" / "sub").mkdir(parents=True)
    (tmp_path / "inner").mkdir()
    mounts = [(tmp_path / "work", "/work", "rw"), (tmp_path / "inner", "/work/sub", "rw")]
    assert run(["touch", "/work/sub/mark"], mounts=mounts).ok
    assert (tmp_path / "inner" / "mark").exists()


def test_a_link_planted_in_place_of_a_landlock_path_widens_nothing(tmp_path: Path) -> None:
    """A rule's path must not lead to more than its mount: here to /etc, which would become writable."""
    work, inner = tmp_path / "work", tmp_path / "inner"
    work.mkdir()
    inner.mkdir()
    for leads_to in ("/", "/etc", "/proc", "/.immure", "/usr"):
        link = work / "sub"
        link.unlink(missing_ok=True)
        link.symlink_to(leads_to)
        try:
            result = run(
                ["cat", "/.immure/sentinel"], mounts=[(work, "/work", "rw"), (inner, "/work/sub", "rw")], workdir="/"
            )
        except ImmureError:
            continue
        assert not result.ok, leads_to


def unmappable() -> list[Path]:
    """Folders of this host that are of a file system which can't be idmapped."""
    found = [Path("/sys"), Path("/proc/sys"), Path("/proc/fs"), Path("/sys/fs/cgroup/unified")]
    return [path for path in found if path.is_dir()]


@pytest.mark.root
@pytest.mark.parametrize("source", unmappable(), ids=str)
def test_a_file_system_that_can_not_be_idmapped(source: Path, cli: CommandLine) -> None:
    for _ in range(5):
        error = refusal([(source, "/work")])
        assert isinstance(error, SetupFailed), repr(error)
        assert error.step == "idmap"
        assert str(source) in str(error)
        assert error.need == "a file system that can be idmapped"
        assert error.hint
    ended = cli.run("-v", f"{source}:/work", "--", "true")
    assert ended.returncode == 125
    assert b"idmap" in ended.stderr


@pytest.mark.root
def test_an_overlay_can_be_shown_or_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "mark").write_text("mark")
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    made = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], stderr=subprocess.PIPE, check=False
    )
    if made.returncode != 0:
        pytest.skip("host: no overlay can be mounted here")
    try:
        assert run(["cat", "/work/mark"], mounts=[(tmp_path / "merged", "/work")]).stdout == b"mark"
    except SetupFailed as error:
        assert error.step == "idmap"
        assert str(tmp_path / "merged") in str(error)
    finally:
        subprocess.run(["umount", tmp_path / "merged"], check=True)


@pytest.mark.root
def test_the_whole_root_is_refused_or_read_only(tmp_path: Path) -> None:
    try:
        result = run(
            shell("cat /host/etc/shadow; echo x > /host/planted"), mounts=[("/", "/host", "ro")], workdir="/tmp"
        )
    except SetupFailed:
        return
    assert not result.ok
    assert not Path("/planted").exists()


def test_too_many_mounts_are_an_error_of_ours(tmp_path: Path) -> None:
    error = refusal([(tmp_path, f"/data/{number}") for number in range(300)])
    assert "mount" in str(error)
