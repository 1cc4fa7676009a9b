"""What a box may take of the host. Each program takes more outside, where nothing stops it before its own bound."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import immure
from security.boxes import run_in_box
from security.build import copied_attempts

_MIB = 1 << 20


def _command(root: Path | str, hog: str, bound: int, *arguments: str) -> list[str]:
    return ["/usr/bin/python3", "-I", "-B", f"{root}/security/hogs.py", hog, str(bound), *arguments]


def hog_in_box(hog: str, bound: int, *arguments: str, level: str = "L2", **limits: float) -> immure.Result:
    try:
        return run_in_box(
            _command("/attempts", hog, bound, *arguments),
            mounts=[(str(copied_attempts()), "/attempts", "ro")],
            workdir="/tmp",
            limits=limits,
            level=level,
        )
    except immure.ProtectionUnavailable as error:
        # A plain user whose host delegates no control group is refused, by name.
        if os.geteuid() == 0 or "memory_mib" not in str(error):
            raise
        pytest.skip(f"host: memory: {error}")


def taken_in(output: bytes) -> dict[str, Any]:
    return json.loads(output.rstrip().rpartition(b"\n")[2])


def taken_outside(hog: str, bound: int, *arguments: str) -> dict[str, Any]:
    command = _command(copied_attempts(), hog, bound, *arguments)
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=True)
    return taken_in(result.stdout)


@pytest.mark.parametrize("hog", ["processes", "threads"])
def test_processes_are_bounded(hog: str) -> None:
    result = hog_in_box(hog, 100, pids=32)
    taken = taken_in(result.stdout)
    assert 16 <= taken["got"] < 32, taken
    assert taken["stopped"]

    assert taken_outside(hog, 100) == {"got": 100, "stopped": ""}


def test_processes_are_bounded_where_nobody_said_so() -> None:
    taken = taken_in(hog_in_box("processes", 2000).stdout)
    assert taken["got"] < 2000, taken
    assert taken["stopped"] == "EAGAIN"

    assert taken_outside("processes", 2000) == {"got": 2000, "stopped": ""}


def test_fork_bomb_leaves_the_host_alone() -> None:
    """While it goes on, the host starts processes of the same user; afterwards nothing of it is left."""
    marker = f"immure-bomb-{os.getpid()}-{time.monotonic_ns()}"
    bomb = "import os, sys\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    results: list[immure.Result] = []
    box = threading.Thread(
        target=lambda: results.append(
            run_in_box(["/usr/bin/python3", "-I", "-c", bomb, marker], limits={"pids": 32, "timeout_s": 2})
        )
    )
    box.start()
    time.sleep(0.5)
    assert _running(marker), "the bomb isn't going on"
    began = time.monotonic()
    for _ in range(20):
        subprocess.run(["/bin/true"], check=True)
    assert time.monotonic() - began < 5
    box.join()
    assert results[0].exit.kind == "timeout"
    assert not _running(marker)


def _running(marker: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(folder.name)
        except OSError:
            continue  # it has ended meanwhile
    return found


@pytest.mark.parametrize("hog", ["memory", "shared_memory", "file_in_memory"])
def test_memory_is_bounded(hog: str) -> None:
    result = hog_in_box(hog, 256, memory_mib=64)
    assert result.exit.kind == "oom", f"{result.exit} {result.stdout.text()} {result.stderr.text()}"
    assert result.usage.memory_peak_bytes <= 72 * _MIB

    assert taken_outside(hog, 256) == {"got": 256, "stopped": ""}


def test_memory_of_children_is_bounded_together() -> None:
    """The kernel ends whom it likes: a child, and the command sees it, or the command."""
    result = hog_in_box("memory_of_children", 256, memory_mib=64)
    assert result.exit.kind == "oom" or taken_in(result.stdout)["got"] <= 64
    assert result.usage.memory_peak_bytes <= 72 * _MIB

    assert taken_outside("memory_of_children", 256) == {"got": 256, "stopped": ""}


def test_memory_of_files_is_bounded() -> None:
    """What lies in the private space is memory too."""
    result = hog_in_box("disk", 256, "/tmp", memory_mib=64, disk_mib=1024)
    assert result.exit.kind == "oom", f"{result.exit} {result.stdout.text()}"


@pytest.mark.parametrize("folders", [("/tmp",), ("/dev/shm",), ("/tmp", "/dev/shm")], ids=" ".join)
def test_disk_is_bounded(folders: tuple[str, ...], tmp_path: Path) -> None:
    taken = taken_in(hog_in_box("disk", 64, *folders, disk_mib=16).stdout)
    assert 8 <= taken["got"] <= 16, taken
    assert taken["stopped"] == "ENOSPC"

    outside = [tmp_path / str(number) for number in range(len(folders))]
    for folder in outside:
        folder.mkdir()
    assert taken_outside("disk", 64, *map(str, outside)) == {"got": 64, "stopped": ""}


def test_files_are_bounded(tmp_path: Path) -> None:
    taken = taken_in(hog_in_box("empty_files", 50_000, "/tmp", disk_mib=16).stdout)
    assert taken["got"] < 50_000, taken
    assert taken["stopped"] == "ENOSPC"

    assert taken_outside("empty_files", 50_000, str(tmp_path)) == {"got": 50_000, "stopped": ""}
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_bounded(stream: str) -> None:
    descriptor = {"stdout": "1", "stderr": "2"}[stream]
    result = hog_in_box("output", 8, descriptor, output_mib=1)
    assert result.exit.kind == "output", result.exit
    assert getattr(result.truncated, stream)
    assert len(getattr(result, stream)) <= _MIB

    assert taken_outside("output", 8, descriptor) == {"got": 8, "stopped": ""}


def test_time_is_bounded() -> None:
    began = time.monotonic()
    result = hog_in_box("time_on_the_processor", 100, timeout_s=1)
    assert result.exit.kind == "timeout", result.exit
    assert time.monotonic() - began < 4

    assert taken_outside("time_on_the_processor", 20) == {"got": 20, "stopped": ""}


def test_time_of_a_sleeper_is_bounded() -> None:
    began = time.monotonic()
    result = run_in_box(["/bin/sleep", "60"], limits={"timeout_s": 1})
    assert result.exit.kind == "timeout", result.exit
    assert time.monotonic() - began < 4
