"""Where a command starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immure import ExecFailed, Sandbox, run

from .command_line import CommandLine, python

pytestmark = pytest.mark.rootless

PWD = ["pwd", "-P"]


def test_without_mounts_it_is_tmp(cli: CommandLine) -> None:
    assert run(PWD).stdout == b"/tmp\n"
    assert cli.run("--", *PWD).stdout == b"/tmp\n"


def test_with_mounts_it_is_the_first_target(tmp_path: Path, cli: CommandLine) -> None:
    assert run(PWD, mounts=[(tmp_path, "/z"), (tmp_path, "/a")]).stdout == b"/z\n"
    assert cli.run("-v", f"{tmp_path}:/z", "-v", f"{tmp_path}:/a", "--", *PWD).stdout == b"/z\n"


def test_a_tmpfs_is_no_first_target(tmp_path: Path) -> None:
    assert run(PWD, mounts=[{"tmpfs": "/scratch"}, (tmp_path, "/work")]).stdout == b"/work\n"


def test_as_it_was_written(tmp_path: Path, cli: CommandLine) -> None:
    (tmp_path / "sub").mkdir()
    mounts = [(tmp_path, "/work")]
    for place in ("/work/sub", "/usr", "/", "/dev/shm"):
        assert run(PWD, mounts=mounts, workdir=place).stdout.text().strip() == place
        ended = cli.run("-v", f"{tmp_path}:/work", "-w", place, "--", *PWD)
        assert ended.stdout.decode().strip() == place
    with Sandbox(mounts=mounts) as box:
        assert box.exec(PWD, workdir="/work/sub").stdout == b"/work/sub\n"
        assert box.exec(PWD).stdout == b"/work\n"


def test_a_link_is_followed_inside_the_box(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/usr/bin")
    assert run(PWD, mounts=[(tmp_path, "/work")], workdir="/work/link").stdout == b"/usr/bin\n"


@pytest.mark.parametrize("place", ["/no/such/folder", "/etc/passwd", "/proc/1/root", "/proc/1/cwd"])
def test_where_nobody_may_start(place: str, cli: CommandLine) -> None:
    with pytest.raises(ExecFailed) as caught:
        run(PWD, workdir=place)
    assert caught.value.exit_status == 126
    assert place in str(caught.value)
    assert cli.run("-w", place, "--", *PWD).returncode == 126


def test_a_folder_that_its_user_may_not_enter(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: a plain user's box is the owner of all that it is shown")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    os.chown(closed, 4321, 4321)
    with pytest.raises(ExecFailed) as caught:
        run(PWD, mounts=[(tmp_path, "/work")], workdir="/work/closed")
    assert caught.value.exit_status == 126


def test_a_folder_of_the_box_that_is_gone() -> None:
    with Sandbox() as box:
        assert box.exec(["mkdir", "/tmp/here"]).ok
        assert box.exec(PWD, workdir="/tmp/here").stdout == b"/tmp/here\n"
        assert box.exec(["rmdir", "/tmp/here"]).ok
        with pytest.raises(ExecFailed):
            box.exec(PWD, workdir="/tmp/here")


def test_relative_parts_stay_inside() -> None:
    program = "import os; os.chdir('../../../../../..'); print(os.getcwd(), sorted(os.listdir('.'))[:3])"
    seen = run(python(program)).stdout.text()
    assert seen.startswith("/ ")
    assert ".immure" in seen
