"""What a box in a Sentry may take. That each program takes more outside is shown by `test_limits.py`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

import immure
from immure.host.tree import below
from runscs import VERSIONS, runsc_of, using
from security.boxes import run_in_box
from security.test_limits import hog_in_box, taken_in

pytestmark = pytest.mark.rootless

_MIB = 1 << 20
# Where the host's side alone decides, one version is enough.
once = pytest.mark.parametrize("runsc", ["newest"], indirect=True)


@pytest.fixture(params=VERSIONS, autouse=True)
def runsc(request: pytest.FixtureRequest) -> Iterator[None]:
    with using(runsc_of(request.param)):
        yield


@pytest.mark.parametrize("hog", ["memory", "file_in_memory"])
def test_memory_is_bounded(hog: str) -> None:
    """The Sentry is counted, and with it all that it holds for the command."""
    result = hog_in_box(hog, 512, memory_mib=128, level="L3")
    assert result.exit.kind == "oom", f"{result.exit} {result.stdout.text()} {result.stderr.text()}"
    assert result.usage.memory_peak_bytes <= 140 * _MIB


@once
def test_memory_of_files_is_bounded() -> None:
    result = hog_in_box("disk", 512, "/tmp", memory_mib=128, disk_mib=2048, level="L3")
    assert result.exit.kind == "oom", f"{result.exit} {result.stdout.text()}"


@once
def test_a_box_that_was_out_of_memory_leaves_the_next_alone() -> None:
    with immure.Sandbox(level="L3") as neighbour:
        hog_in_box("memory", 512, memory_mib=128, level="L3")
        assert neighbour.exec(["/bin/true"]).ok


@pytest.mark.parametrize("hog", ["processes", "threads"])
def test_processes_are_bounded(hog: str) -> None:
    taken = taken_in(hog_in_box(hog, 100, pids=32, level="L3").stdout)
    # The Sentry counts the first of them for the user who started it.
    assert 8 <= taken["got"] <= 32, taken
    assert taken["stopped"]


@once
def test_a_fork_bomb_ends_with_its_time() -> None:
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    with immure.Sandbox(level="L3", limits={"pids": 32}) as box:
        ended = box.exec(["/usr/bin/python3", "-I", "-c", bomb], timeout_s=1)
        assert ended.exit.kind == "timeout"
        subprocess.run(["/bin/true"], check=True)
        # What the bomb has made are 32 processes of the Sentry: the host has the Sentry's own.
        assert len(below(box._box.pid)) < 200


@once
def test_processes_that_the_sentry_does_not_count_are_bounded_by_the_host() -> None:
    """A capability lifts the Sentry's own limit, and what runs out then is the box around it."""
    bomb = "import os, time\nfor n in range(2000):\n  if os.fork() == 0:\n    time.sleep(60)\nprint('made')"
    try:
        box = immure.Sandbox(level="L3", user=0, capabilities={"add": ["SYS_RESOURCE"]}, limits={"pids": 16})
    except immure.ProtectionUnavailable:
        pytest.skip("host: no cgroup of this user's")
    with box:
        (clause,) = [one for one in box.exec(["/bin/true"]).report if one.clause == "limits.pids"]
        if "around it" not in clause.by:
            pytest.skip("host: no cgroup of this user's")
        most = 0
        try:
            process = box.start(["/usr/bin/python3", "-I", "-c", bomb])
            for _ in range(100):
                most = max(most, len(below(box._box.pid)))
                process.wait(timeout_s=0.05)
        except (immure.ImmureError, TimeoutError):
            pass
        assert most < 400
    assert run_in_box(["/bin/true"], level="L3").ok


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_disk_is_bounded(folder: str) -> None:
    taken = taken_in(hog_in_box("disk", 64, folder, disk_mib=16, level="L3").stdout)
    assert 2 <= taken["got"] <= 16, taken
    assert taken["stopped"] == "ENOSPC"


@once
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_is_bounded(stream: str) -> None:
    result = hog_in_box("output", 8, {"stdout": "1", "stderr": "2"}[stream], output_mib=1, level="L3")
    assert result.exit.kind == "output", result.exit
    assert len(getattr(result, stream)) <= _MIB


@once
def test_a_flood_that_nobody_reads_waits() -> None:
    """It neither fills the host's memory nor keeps other commands from being answered."""
    flood = ["/usr/bin/python3", "-I", "-c", "import os\nwhile True: os.write(1, b'x' * 65536)"]
    with immure.Sandbox(level="L3") as box:
        process = box.start(flood)
        for _ in range(5):
            assert box.exec(["/bin/echo", "heard"]).stdout == b"heard\n"
        process.kill()
        assert process.wait().exit.kind == "signaled"


@once
def test_time_is_bounded() -> None:
    result = hog_in_box("time_on_the_processor", 100, timeout_s=1, level="L3")
    assert result.exit.kind == "timeout", result.exit


@once
def test_nothing_outlives_the_box() -> None:
    daemon = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  time.sleep(60)"
    with immure.Sandbox(level="L3") as box:
        box.exec(["/usr/bin/python3", "-I", "-c", daemon])
        carriers = below(box._box.pid)
        assert carriers
    assert not [pid for pid in carriers if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110
    assert run_in_box(["/bin/true"], level="L3").ok
