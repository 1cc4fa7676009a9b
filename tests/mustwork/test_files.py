"""Mounts, private space, and what programs do with files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mustwork.boxes import in_box, python, shell


@pytest.fixture
def work(tmp_path: Path) -> tuple[Path, list[tuple[str, str, str]]]:
    """A folder of the caller's, and the mounts that show it at /work, writable."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder, [(str(folder), "/work", "rw")]


Work = tuple[Path, list[tuple[str, str, str]]]


def test_what_is_written_belongs_to_the_caller(work: Work) -> None:
    folder, mounts = work
    shell("echo written > file; mkdir -p a/b; echo deep > a/b/file; ln -s file link", mounts=mounts)
    assert (folder / "file").read_text() == "written\n"
    assert (folder / "a/b/file").read_text() == "deep\n"
    for path in (folder, *folder.rglob("*")):
        assert (path.lstat().st_uid, path.lstat().st_gid) == (os.geteuid(), os.getegid()), path


def test_own_files_look_like_own_files(work: Work) -> None:
    folder, mounts = work
    (folder / "file").touch()
    assert shell("stat -c %u:%g file; id -u; id -g", mounts=mounts) == "1000:1000\n1000\n1000\n"


def test_work_starts_in_the_first_mount(work: Work) -> None:
    assert shell("pwd", mounts=work[1]) == "/work\n"
    assert shell("pwd") == "/tmp\n"


def test_closed_folder_of_the_caller_can_be_read(tmp_path: Path) -> None:
    """Read-only mounts show what the caller may read, also what nobody else may."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    (folder / "file").write_text("for me alone")
    (folder / "file").chmod(0o600)
    assert in_box(["/bin/cat", "/closed/file"], mounts=[(str(folder), "/closed", "ro")]) == "for me alone"


def test_single_file_can_be_mounted(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_text("alone")
    assert in_box(["/bin/cat", "/data/one"], mounts=[(str(file), "/data/one", "ro")]) == "alone"


def test_mount_within_a_mount(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    (outer / "sub").mkdir(parents=True)
    inner.mkdir()
    mounts = [(str(outer), "/work", "ro"), (str(inner), "/work/sub", "rw")]
    shell("echo written > sub/file; ! touch here 2> /dev/null", mounts=mounts)
    assert (inner / "file").read_text() == "written\n"


def test_files_are_renamed_linked_and_cut(work: Work) -> None:
    folder, mounts = work
    shell(
        """
        echo 0123456789 > a
        mv a b
        ln b c
        ln -s b d
        truncate -s 4 d
        mkdir old; mv old new; rmdir new
        rm c
        """,
        mounts=mounts,
    )
    assert (folder / "b").read_text() == "0123"
    assert sorted(path.name for path in folder.iterdir()) == ["b", "d"]


def test_ordinary_modes_are_kept(work: Work) -> None:
    folder, mounts = work
    shell("touch private program; chmod 600 private; chmod 755 program; mkdir sticky; chmod 1777 sticky", mounts=mounts)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"private": 0o600, "program": 0o755, "sticky": 0o1777}


def test_files_are_mapped_copied_and_locked(work: Work) -> None:
    folder, mounts = work
    python(
        """
        import fcntl, mmap, os, shutil
        with open("file", "w+b") as file:
            file.truncate(1 << 20)
            with mmap.mmap(file.fileno(), 0) as area:
                area[-5:] = b"mapped"[:5]
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.lockf(file, fcntl.LOCK_EX)
            os.posix_fallocate(file.fileno(), 0, 2 << 20)
        shutil.copy2("file", "copy")
        os.utime("copy", (1, 2))
        """,
        mounts=mounts,
    )
    assert (folder / "copy").read_bytes()[(1 << 20) - 5 : 1 << 20] == b"mappe"
    assert (folder / "copy").stat().st_mtime == 2


def test_temporary_files() -> None:
    python(
        """
        import pathlib, tempfile
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as nameless:
            assert folder.startswith("/tmp/")
            pathlib.Path(folder, "file").write_text("x")
            nameless.write(b"x")
        """
    )


def test_programs_run_from_private_space() -> None:
    assert shell("cp /bin/echo /tmp/copy; /tmp/copy ran; printf '#!/bin/sh\\necho too\\n' > s; chmod +x s; ./s") == (
        "ran\ntoo\n"
    )


def test_changes_of_files_are_watched(work: Work) -> None:
    python(
        """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        watch = libc.inotify_init1(0)
        assert libc.inotify_add_watch(watch, b"/work", 0x100) >= 0, ctypes.get_errno()
        open("/work/new", "w").close()
        assert b"new" in os.read(watch, 4096)
        """,
        mounts=work[1],
    )
