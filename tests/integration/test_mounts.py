"""Folders and files of the host in a box."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from immure import Result, Sandbox, run

from .command_line import CommandLine, python, shell

pytestmark = pytest.mark.rootless


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file and a folder with another in it."""
    place = tmp_path / "shown"
    (place / "sub").mkdir(parents=True)
    (place / "file").write_text("content")
    (place / "sub" / "deep").write_text("deep content")
    return place


def writes(path: str) -> list[str]:
    return ["sh", "-c", f"echo planted > {path}"]


def test_read_only(folder: Path) -> None:
    mounts = [(folder, "/work", "ro")]
    assert run(["cat", "/work/file", "/work/sub/deep"], mounts=mounts).stdout == b"contentdeep content"
    for path in ("/work/file", "/work/new", "/work/sub/new"):
        assert not run(writes(path), mounts=mounts).ok
    for script in (
        "rm /work/file",
        "mkdir /work/d",
        "chmod 777 /work/file",
        "touch /work/file",
        "ln /work/file /work/l",
    ):
        assert not run(shell(script), mounts=mounts).ok, script
    assert (folder / "file").read_text() == "content"
    assert sorted(path.name for path in folder.iterdir()) == ["file", "sub"]


def test_read_only_is_the_default(folder: Path) -> None:
    assert not run(writes("/work/file"), mounts=[(folder, "/work")]).ok


def test_writable(folder: Path) -> None:
    script = shell("echo new > /work/new; mkdir /work/d; mv /work/file /work/d/; rm -r /work/sub; ln -s d /work/l")
    assert run(script, mounts=[(folder, "/work", "rw")]).ok
    assert (folder / "new").read_text() == "new\n"
    assert (folder / "d" / "file").read_text() == "content"
    assert (folder / "l").readlink() == Path("d")
    assert not (folder / "sub").exists()


def test_programs_of_a_mount_can_be_run(folder: Path) -> None:
    tool = folder / "tool"
    tool.write_text("#!/bin/sh\necho ran\n")
    tool.chmod(0o755)
    assert run(["/work/tool"], mounts=[(folder, "/work")]).stdout == b"ran\n"


def test_a_file(folder: Path) -> None:
    mounts = [(folder / "file", "/etc/motd", "ro"), (folder / "sub" / "deep", "/data/in", "rw")]
    assert run(["cat", "/etc/motd", "/data/in"], mounts=mounts, workdir="/").stdout == b"contentdeep content"
    assert not run(writes("/etc/motd"), mounts=mounts, workdir="/").ok
    assert run(writes("/data/in"), mounts=mounts, workdir="/").ok
    assert (folder / "sub" / "deep").read_text() == "planted\n"
    assert not run(["ls", "/data/../etc/motd/.."], mounts=mounts, workdir="/").ok


def test_a_file_in_private_space(folder: Path) -> None:
    mounts = [(folder / "file", "/tmp/given/file")]
    assert run(shell("cat /tmp/given/file; echo x > /tmp/other"), mounts=mounts, workdir="/tmp").stdout == b"content"


def test_a_folder_in_private_space(folder: Path) -> None:
    for target in ("/tmp/given", "/tmp/a/b/c"):
        result = run(shell(f"cat {target}/file; echo x > /tmp/other && cat /tmp/other"), mounts=[(folder, target)])
        assert result.stdout == b"contentx\n", target


def test_in_place_of_private_space(folder: Path) -> None:
    assert run(["cat", "/tmp/file"], mounts=[(folder, "/tmp")]).stdout == b"content"


def test_mounts_in_each_other(folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "mark").write_text("inner")
    mounts = [(inner, "/work/sub", "rw"), (folder, "/work", "ro")]
    result = run(shell("cat /work/file /work/sub/mark; echo x > /work/sub/new; echo y > /work/new"), mounts=mounts)
    assert result.stdout == b"contentinner"
    assert (inner / "new").read_text() == "x\n"
    assert not (folder / "new").exists()


def test_a_read_only_mount_in_a_writable_one(folder: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "mark").write_text("inner")
    mounts = [(folder, "/work", "rw"), (inner, "/work/sub", "ro")]
    assert run(writes("/work/new"), mounts=mounts).ok
    assert not run(writes("/work/sub/mark"), mounts=mounts).ok
    for script in ("rm -rf /work/sub", "mv /work/sub /work/moved", "rmdir /work/sub"):
        run(shell(script), mounts=mounts)
    assert (inner / "mark").read_text() == "inner"
    assert (folder / "sub" / "deep").exists()


def test_the_same_source_twice(folder: Path) -> None:
    mounts = [(folder, "/one", "ro"), (folder, "/two", "rw")]
    assert run(shell("echo x > /two/new && cat /one/new; echo y > /one/no"), mounts=mounts).stdout == b"x\n"
    assert not (folder / "no").exists()


def test_a_folder_of_the_caller_alone_can_be_read(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "file").chmod(0o600)
    assert run(["cat", "/work/file"], mounts=[(folder, "/work", "ro")]).stdout == b"content"


def test_many_mounts(folder: Path) -> None:
    mounts = [(folder, f"/data/{number}") for number in range(100)]
    assert run(shell("cat /data/*/file | wc -c"), mounts=mounts).stdout.strip() == b"700"


def test_names_that_need_care(folder: Path, cli: CommandLine) -> None:
    for name in ("two words", "ü€", "new\nline", "quote'\"", "%s", "back\\slash", "#x", "comma,comma"):
        source = folder / name
        source.mkdir()
        (source / "mark").write_text(name)
        result = run(["cat", f"/data/{name}/mark"], mounts=[(source, f"/data/{name}")])
        assert result.stdout.decode() == name
        if ":" not in name:
            ended = cli.run("-v", f"{source}:/data/{name}", "--", "cat", f"/data/{name}/mark")
            assert ended.stdout.decode() == name


def test_a_name_that_is_no_text_is_shown_or_refused(folder: Path, cli: CommandLine) -> None:
    source = folder / "\udcff\udcfe"
    source.mkdir()
    (source / "mark").write_text("mark")
    ended = cli.run("-v", f"{source}:/data", "--", "cat", "/data/mark")
    assert (ended.returncode, ended.stdout) in ((0, b"mark"), (125, b""))
    assert b"Traceback" not in ended.stderr


def test_relative_and_home_sources(folder: Path, cli: CommandLine) -> None:
    assert cli.run("-v", ".:/work", "--", "cat", "/work/file", cwd=folder).stdout == b"content"
    assert cli.run("-v", "sub:/work", "--", "cat", "/work/deep", cwd=folder).stdout == b"deep content"
    assert cli.run("-v", "../shown:/work", "--", "cat", "file", cwd=folder).stdout == b"content"


def test_the_folder_of_the_document_is_where_its_sources_start(folder: Path, cli: CommandLine) -> None:
    (folder / "box.yaml").write_text(
        "apiVersion: immure.dev/v1\nkind: Sandbox\n"
        "spec: {command: [cat, /work/deep], files: {mounts: [{source: sub, target: /work}]}}\n"
    )
    for where in (folder, folder / "sub", Path("/")):
        ended = cli.run("-f", os.path.relpath(folder / "box.yaml", where), cwd=where)
        assert ended.stdout == b"deep content", ended.stderr


def test_a_tmpfs_with_a_size(cli: CommandLine) -> None:
    fill = shell("dd if=/dev/zero of=/scratch/x bs=1M count=9 2>/dev/null; stat -c %s /scratch/x; stat -c %a /scratch")
    result = run(fill, mounts=[{"tmpfs": "/scratch", "size_mib": 4}])
    assert result.stdout == b"%d\n1777\n" % (4 << 20)
    assert cli.run("--tmpfs", "/scratch:4", "--", *fill).stdout == result.stdout


def test_a_tmpfs_is_part_of_the_private_space() -> None:
    program = python(
        "import os\n"
        "total = 0\n"
        "for place in ('/tmp', '/dev/shm', '/scratch', '/more'):\n"
        "    with open(place + '/x', 'wb', buffering=0) as f:\n"
        "        try:\n"
        "            while True: total += f.write(bytes(1 << 20))\n"
        "        except OSError: pass\n"
        "print(total >> 20)"
    )
    mounts = [{"tmpfs": "/scratch", "size_mib": 4}, {"tmpfs": "/more"}]
    assert int(run(program, mounts=mounts, disk_mib=16).stdout) <= 16


def test_a_tmpfs_below_a_mount_needs_a_place_there(folder: Path) -> None:
    result = run(shell("echo x > /work/sub/new; ls /work/sub"), mounts=[(folder, "/work"), {"tmpfs": "/work/sub"}])
    assert result.stdout == b"new\n"
    assert not (folder / "sub" / "new").exists()


def test_mounts_of_the_source_come_along(folder: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: only root can mount something there first")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "sub"], check=True)
    try:
        (folder / "sub" / "mounted").write_text("from below")
        seen = run(["cat", "/work/sub/mounted"], mounts=[(folder, "/work", "rw")])
        assert seen.stdout == b"from below"
        assert not run(writes("/work/sub/x"), mounts=[(folder, "/work", "ro")]).ok
    finally:
        subprocess.run(["umount", folder / "sub"], check=True)


def test_a_mount_made_on_the_host_afterwards_does_not_appear(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: only root can mount something")
    with Sandbox(mounts=[(folder, "/work", "rw")]) as box:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "sub"], check=True)
        try:
            (folder / "sub" / "secret").write_text("x")
            assert box.exec(["ls", "/work/sub"]).stdout == b"deep\n"
        finally:
            subprocess.run(["umount", folder / "sub"], check=True)


def test_nothing_of_a_box_is_mounted_on_the_host(folder: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text().splitlines()
    with Sandbox(mounts=[(folder, "/work", "rw"), {"tmpfs": "/scratch"}]) as box:
        assert box.exec(["true"]).ok
        during = Path("/proc/self/mountinfo").read_text().splitlines()
    assert [line for line in during if line not in before and str(folder) in line] == []


def test_a_box_can_not_tell_where_its_mounts_come_from(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("root: whose bind mounts show the root of the file system that they are of")
    result: Result = run(["cat", "/proc/self/mountinfo"], mounts=[(folder, "/work")])
    lines = [line for line in result.stdout.text().splitlines() if line.split()[4] == "/work"]
    assert len(lines) == 1
    assert "nosuid" in lines[0]
    assert "nodev" in lines[0]
    assert "idmapped" in lines[0]


def test_a_caller_s_umask_is_not_the_box_s(tmp_path: Path) -> None:
    """A mount below /tmp stands on folders that are made for it."""
    (tmp_path / "shown").mkdir(mode=0o755)
    (tmp_path / "shown/file").write_text("content")
    tmp_path.chmod(0o755)
    program = (
        "import os, sys\n"
        "os.umask(0o077)\n"
        "from immure import run\n"
        "shown = run(['cat', '/tmp/made/for/it/file'], mounts=[(sys.argv[1], '/tmp/made/for/it', 'ro')])\n"
        "print(shown.stdout.text(), shown.stderr.text())\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "shown"], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["content"]
