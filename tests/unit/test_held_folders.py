"""Folders that go with whoever needs them, or with the next one that makes such a folder."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from immure.engine.held_folders import let_go, make_held

pytestmark = pytest.mark.rootless


def test_it_is_private_and_goes(tmp_path: Path) -> None:
    folder, held = make_held(tmp_path, "one-")
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "file").write_bytes(b"x")
    let_go(folder, held, os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_in_a_child_it_stays(tmp_path: Path) -> None:
    folder, held = make_held(tmp_path, "one-")
    let_go(folder, held, os.getpid() + 1)
    assert folder.exists()


def test_what_a_killed_caller_left_goes_with_the_next(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib\nfrom immure.engine.held_folders import make_held\n"
        "folder, _ = make_held(pathlib.Path(sys.argv[1]), 'one-')\n(folder / 'file').write_bytes(b'x')\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path], check=False).returncode == 9
    (left,) = tmp_path.iterdir()
    (tmp_path / "one-file").write_bytes(b"no folder")
    (tmp_path / "another").mkdir()
    (tmp_path / "one-link").symlink_to("another")
    mine, held = make_held(tmp_path, "one-")
    assert not left.exists()
    # One that is held stays, and so does what is none.
    other, second = make_held(tmp_path, "one-")
    names = {"one-file", "another", "one-link", mine.name, other.name}
    assert {one.name for one in tmp_path.iterdir()} == names
    for folder, fd in ((mine, held), (other, second)):
        let_go(folder, fd, os.getpid())


def test_makers_and_sweepers_at_once(tmp_path: Path) -> None:
    """Who is swept between making and holding makes another."""
    failed: list[object] = []

    def make_and_let_go() -> None:
        try:
            for _ in range(100):
                folder, held = make_held(tmp_path, "one-")
                (folder / "file").write_bytes(b"x")
                let_go(folder, held, os.getpid())
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make_and_let_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert list(tmp_path.iterdir()) == []
