"""Limits, as a command meets them and as the host shows them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from immure import ProtectionUnavailable, Sandbox, run
from immure.engine.prepare import host_facts

from .command_line import CommandLine, python, shell
from .processes import eventually, read_process


def parent_of(controller: str) -> tuple[Path, int]:
    """Where boxes' cgroups of this controller are made, and the version."""
    for one in host_facts().cgroups:
        if controller in one.controllers:
            return Path(one.path), one.version
    pytest.skip(f"host: no cgroup with the {controller} controller can be written here")


def own_cgroup(controller: str, box: Sandbox) -> Path:
    """The box's cgroup: the one that its pid 1 is in."""
    parent, _ = parent_of(controller)
    pid = str(box._box.pid)
    for folder in parent.glob("immure-*"):
        if pid in (folder / "cgroup.procs").read_text().split():
            return folder
    raise AssertionError(f"process {pid} is in no cgroup below {parent}")


@pytest.mark.rootless
@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_timeout(seconds: float) -> None:
    began = time.monotonic()
    result = run(["sleep", "20"], timeout_s=seconds)
    assert result.exit.kind == "timeout"
    assert seconds <= time.monotonic() - began < seconds + 3


@pytest.mark.rootless
def test_the_timeout_ends_children_too() -> None:
    with Sandbox() as box:
        assert box.exec(shell("sleep 41 & sleep 42"), timeout_s=0.2).exit.kind == "timeout"
        found = box.exec(shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout
        assert b"sleep 41" not in found


@pytest.mark.rootless
def test_output_before_the_timeout_is_kept() -> None:
    result = run(shell("echo before; sleep 20"), timeout_s=0.3)
    assert (result.exit.kind, result.stdout) == ("timeout", b"before\n")


@pytest.mark.root
def test_memory(cli: CommandLine) -> None:
    parent_of("memory")
    hog = python("x = bytearray(400 << 20); print(len(x))")
    result = run(hog, memory_mib=64)
    assert result.exit.kind == "oom"
    assert result.stdout == b""
    assert result.usage.memory_peak_bytes <= 64 << 20
    ended = cli.run("--memory", "64", "--", *hog)
    assert ended.returncode == 137
    assert b"out of memory" in ended.stderr
    assert run(hog, memory_mib=512).ok, "and with more of it the same command succeeds"


@pytest.mark.root
def test_a_child_that_runs_out_of_memory_is_its_parents_business() -> None:
    parent_of("memory")
    result = run(shell("python3 -c 'x = bytearray(400 << 20)'; echo $?"), memory_mib=64)
    assert (result.exit.kind, result.stdout) == ("exited", b"137\n")


@pytest.mark.root
def test_private_space_counts_as_memory() -> None:
    parent_of("memory")
    result = run(["dd", "if=/dev/zero", "of=/tmp/x", "bs=1M", "count=400"], memory_mib=64)
    assert result.exit.kind == "oom"


@pytest.mark.root
@pytest.mark.parametrize("controller", ["memory", "pids", "cpu"])
def test_the_host_shows_the_limit(controller: str) -> None:
    _, version = parent_of(controller)
    limits = {"memory": {"memory_mib": 96}, "pids": {"pids": 40}, "cpu": {"cpus": 0.5}}[controller]
    wanted = {
        ("memory", 1): {"memory.limit_in_bytes": str(96 << 20)},
        ("memory", 2): {"memory.max": str(96 << 20), "memory.swap.max": "0"},
        ("pids", 1): {"pids.max": "41"},
        ("pids", 2): {"pids.max": "41"},
        ("cpu", 1): {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000"},
        ("cpu", 2): {"cpu.max": "50000 100000"},
    }[controller, version]
    with Sandbox(**limits) as box:
        folder = own_cgroup(controller, box)
        if (folder / "memory.memsw.limit_in_bytes").exists():
            wanted["memory.memsw.limit_in_bytes"] = str(96 << 20)
        assert {name: (folder / name).read_text().strip() for name in wanted} == wanted
        assert eventually(lambda: len((folder / "cgroup.procs").read_text().split()) == 1), "init"
    assert eventually(lambda: not folder.exists()), "the cgroup goes with its box"


@pytest.mark.root
def test_commands_are_in_the_cgroup() -> None:
    parent_of("pids")
    with Sandbox(pids=40) as box:
        folder = own_cgroup("pids", box)
        assert box.exec(shell("sleep 5 & sleep 6 &")).ok
        wanted = ["immure-init", "sleep", "sleep"]
        assert eventually(lambda: names_in(folder) == wanted), names_in(folder)


def names_in(cgroup: Path) -> list[str]:
    found = [read_process(int(pid)) for pid in (cgroup / "cgroup.procs").read_text().split()]
    return sorted(one.name for one in found if one is not None)


@pytest.mark.root
def test_cpus() -> None:
    parent_of("cpu")
    spin = python("import time\nend = time.time() + 1.0\nwhile time.time() < end: pass\nprint(time.process_time())")
    assert float(run(spin, cpus=0.25).stdout) < 0.45


@pytest.mark.root
def test_pids() -> None:
    parent_of("pids")
    script = shell("for i in $(seq 60); do sleep 3 & done; echo all")
    assert run(script, pids=20, timeout_s=10).stdout == b""
    assert run(shell("for i in $(seq 10); do sleep 0.1 & done; echo all; wait"), pids=20).stdout == b"all\n"


@pytest.mark.rootless
def test_there_is_a_limit_of_processes_where_none_is_written() -> None:
    program = python(
        "import os, time\n"
        "n = 0\n"
        "try:\n"
        "    while n < 3000:\n"
        "        if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "        n += 1\n"
        "except OSError: pass\n"
        "print(n)"
    )
    assert 450 <= int(run(program, timeout_s=30).stdout) <= 513


@pytest.mark.root
def test_a_box_that_is_full_says_so_and_recovers() -> None:
    parent_of("pids")
    with Sandbox(pids=8) as box:
        result = box.exec(shell("for i in $(seq 30); do sleep 0.5 & done; wait"), timeout_s=10)
        assert result.exit.kind in ("exited", "signaled")
        assert eventually(lambda: succeeds(box))


def succeeds(box: Sandbox) -> bool:
    try:
        return box.exec(["true"]).ok
    except Exception:
        return False


@pytest.mark.rootless
@pytest.mark.parametrize("place", ["/tmp", "/dev/shm"])
def test_disk(place: str, cli: CommandLine) -> None:
    fill = ["dd", "if=/dev/zero", f"of={place}/x", "bs=1M", "count=30"]
    result = run(fill, disk_mib=8)
    assert result.exit.code == 1
    assert b"No space left on device" in result.stderr
    assert cli.run("--disk", "8", "--", *fill).returncode == 1
    assert run(fill, disk_mib=40).ok


@pytest.mark.rootless
def test_disk_is_the_sum_of_all_private_space() -> None:
    script = shell(
        "dd if=/dev/zero of=/tmp/x bs=1M count=5 && dd if=/dev/zero of=/dev/shm/x bs=1M count=5;"
        "du -sk /tmp /dev/shm | cut -f1"
    )
    sizes = run(script, disk_mib=8).stdout.split()
    assert sum(map(int, sizes)) <= 8 * 1024


@pytest.mark.rootless
def test_nothing_else_of_the_root_can_be_written() -> None:
    script = shell(
        "for d in / /etc /usr /usr/local /var /run /home /root /mnt /opt /srv /dev /proc /proc/sys/kernel; do"
        " (: > $d/x) 2>/dev/null && echo $d; done; exit 0"
    )
    assert run(script).stdout == b""
    assert run(script, user=0).stdout == b""


@pytest.mark.rootless
def test_a_written_limit_that_this_host_lacks_is_refused() -> None:
    available = {name for parent in host_facts().cgroups for name in parent.controllers}
    for controller, limits in (("memory", {"memory_mib": 64}), ("cpu", {"cpus": 1})):
        if controller in available:
            continue
        with pytest.raises(ProtectionUnavailable) as caught:
            run(["true"], **limits)
        assert controller in str(caught.value)
        name = "cpus" if controller == "cpu" else controller
        result = run(["true"], protections={name: "best_effort"}, **limits)
        assert [one.got for one in result.report if one.clause.startswith(f"limits.{name}")] == ["unenforceable"]
