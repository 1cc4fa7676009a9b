"""As root in a service of systemd's, beside others: what bounds a box, what counts it, and where it is made."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from immure import Sandbox, run
from immure.engine.spawners import close_all
from immure.host.native import native_program
from immure.plan.limits import DEFAULT_MEMORY_MIB, DEFAULT_PIDS
from integration.command_line import CommandLine, python, shell
from integration.processes import eventually

from .here import CGROUPS, cgroup_of, clauses, count, own_path, parents, values

MIB = 1 << 20
HOG = python("x = bytearray(200 << 20); print(len(x))")
SPIN = python("while True: pass")


def test_the_control_this_is_cgroup2_with_the_three_controllers() -> None:
    assert Path("/proc/self/cgroup").read_text() == "0::/system.slice/root.service\n"
    mounted = [line.split() for line in Path("/proc/mounts").read_text().splitlines() if "cgroup" in line]
    assert [(words[1], words[2]) for words in mounted] == [(str(CGROUPS), "cgroup2")]
    assert {"memory", "cpu", "pids"} <= {*(CGROUPS / "cgroup.controllers").read_text().split()}
    for file in ("cgroup.kill", "cgroup.freeze", "memory.max", "memory.swap.max", "pids.max"):
        assert (CGROUPS / "system.slice" / file).exists(), file


def test_what_is_found(cli: CommandLine) -> None:
    assert parents() == {"/system.slice": "memory pids", "": "cpu memory pids"}
    said = cli.carry_out("doctor").stdout.decode()
    assert f"cgroups in {CGROUPS}/system.slice (v2): memory pids\n" in said
    assert f"cgroups in {CGROUPS} (v2): memory pids cpu\n" in said


def test_a_box_has_limits_where_none_is_written() -> None:
    with Sandbox() as box:
        folder = cgroup_of(box)
        assert folder.parent == CGROUPS / "system.slice"
        assert values(folder, "memory.max", "memory.swap.max", "pids.max") == {
            "memory.max": str(DEFAULT_MEMORY_MIB * MIB),
            "memory.swap.max": "0",
            "pids.max": str(DEFAULT_PIDS + 1),
        }
        # The evidence has the host's word.
        assert box.evidence().host.cgroup == f"0::/{folder.relative_to(CGROUPS)}\n".rstrip("\n")
    assert not folder.exists()


def test_all_written_limits_are_in_one_cgroup_that_has_what_they_need() -> None:
    with Sandbox(memory_mib=96, cpus=0.5, pids=40) as box:
        folder = cgroup_of(box)
        assert folder.parent == CGROUPS, "the slice has no processors to give"
        assert values(folder, "memory.max", "memory.swap.max", "pids.max", "cpu.max") == {
            "memory.max": str(96 * MIB),
            "memory.swap.max": "0",
            "pids.max": "41",
            "cpu.max": "50000 100000",
        }
        done = box.exec(["true"])
    assert {got for got, _ in clauses(done).values()} == {"exact"}


def test_a_box_without_namespaces_is_in_one_too() -> None:
    """Its supervisor and its stem are the one process more."""
    with Sandbox(level="L1", namespaces="none", pids=10, memory_mib=64) as box:
        folder = cgroup_of(box)
        assert values(folder, "memory.max", "pids.max") == {"memory.max": str(64 * MIB), "pids.max": "12"}
        assert box.exec(HOG).exit.kind == "oom"
    assert not folder.exists()


def test_memory_that_is_out_ends_a_command_and_not_its_box() -> None:
    with Sandbox(memory_mib=64) as box:
        for kills in (1, 2):
            ended = box.exec(HOG)
            assert (ended.exit.kind, ended.exit.signal) == ("oom", 9)
            assert count(cgroup_of(box), "memory.events", "oom_kill") == kills
        # The verdict is the kernel's count: a command that kills itself has not run out of memory.
        assert box.exec(shell("kill -9 $$")).exit.kind == "signaled"
        assert box.exec(["true"]).ok


def test_nothing_of_a_box_goes_to_swap() -> None:
    """With swap to be had, it would take what is too much."""
    assert Path("/proc/swaps").read_text().count("/dev/vdb") == 1
    ended = run(HOG, memory_mib=64)
    assert ended.exit.kind == "oom"
    assert ended.usage.memory_peak_bytes <= 64 * MIB

    # The control: where it may, the same fits.
    other = CGROUPS / "system.slice/swaps"
    other.mkdir()
    (other / "memory.max").write_text(str(64 * MIB))
    try:
        words = ["sh", "-c", f'echo $$ >{other}/cgroup.procs; exec "$@"', "sh", *HOG]
        assert subprocess.run(words, capture_output=True).stdout == b"%d\n" % (200 * MIB)
        assert count(other, "memory.events", "oom_kill") == 0
    finally:
        assert eventually(lambda: not (other / "cgroup.procs").read_text())
        other.rmdir()


def test_a_fork_bomb_is_counted_by_the_kernel() -> None:
    """Of two users of a box, neither of which has as many as one may have."""
    bomb = python("import os, time\nfor _ in range(12):\n  if os.fork() == 0: time.sleep(30)\ntime.sleep(30)")
    with Sandbox(pids=16) as box:
        first = box.start(bomb, user=2000)
        folder = cgroup_of(box)
        assert eventually(lambda: len((folder / "cgroup.procs").read_text().split()) == 14)
        assert count(folder, "pids.events", "max") == 0
        assert "BlockingIOError" in box.exec(bomb).stderr.text()
        assert count(folder, "pids.events", "max") > 0
        assert int((folder / "pids.peak").read_text()) == 17
        first.kill()


def test_what_a_box_has_used() -> None:
    program = python(
        "import time\nx = bytearray(100 << 20)\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    )
    used = run(program, memory_mib=256).usage
    assert 100 * MIB < used.memory_peak_bytes < 160 * MIB
    assert used.cpu_ms >= 500
    assert used.pids_peak == 1


def test_a_pause_stops_the_clock_of_the_processors() -> None:
    with Sandbox() as box:
        folder = cgroup_of(box)
        command = box.start(SPIN)

        def used() -> int:
            return count(folder, "cpu.stat", "usage_usec")

        began = used()
        assert eventually(lambda: used() > began + 50_000), "it runs"
        assert box.stats().cpu_ms > 0
        box.pause()
        before = used()
        time.sleep(0.5)
        assert used() - before < 20_000
        box.resume()
        assert eventually(lambda: used() > before + 100_000), "it runs again"
        command.kill()


def test_processors_are_throttled() -> None:
    with Sandbox(cpus=0.2) as box:
        folder = cgroup_of(box)
        began, before = time.monotonic(), count(folder, "cpu.stat", "usage_usec")
        box.exec(SPIN, timeout_s=1.5)
        used, passed = count(folder, "cpu.stat", "usage_usec") - before, time.monotonic() - began
        assert values(folder, "cpu.max") == {"cpu.max": "20000 100000"}
        assert count(folder, "cpu.stat", "nr_throttled") > 3
        # A fifth, and what each processor has of a period already.
        assert used / 1e6 < 0.2 * passed + 0.1


def test_a_box_sees_no_path_of_the_host_s() -> None:
    assert run(["cat", "/proc/self/cgroup"]).stdout == b"0::/\n"


def calls(folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[str, dict[str, str]]:
    """What the spawner alone asks of the kernel for a box, and what bounds that."""
    trace, program = folder / "trace", folder / "init"
    words = ["strace", "-o", str(trace), "--trace=clone,clone3,openat", *options, native_program()]
    program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("IMMURE_INIT", str(program))
    try:
        with Sandbox(memory_mib=64) as box:
            bounds = values(cgroup_of(box), "memory.max")
    finally:
        close_all()
        monkeypatch.undo()
    return trace.read_text(), bounds


def test_a_box_is_born_in_its_cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has to be moved, which has the kernel wait until no process forks."""
    said, bounds = calls(tmp_path, monkeypatch)
    assert bounds == {"memory.max": str(64 * MIB)}
    (born,) = [line for line in said.splitlines() if "clone3(" in line]
    assert "CLONE_INTO_CGROUP" in born
    assert "cgroup.procs" not in said


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
def test_where_a_filter_refuses_that_it_is_moved(error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, bounds = calls(tmp_path, monkeypatch, f"--inject=clone3:error={error}")
    assert bounds == {"memory.max": str(64 * MIB)}
    assert "(INJECTED)" in said
    assert "cgroup.procs" in said


def test_nobody_else_of_the_service_is_touched() -> None:
    service = CGROUPS / own_path().lstrip("/")
    before = service.joinpath("cgroup.procs").read_text().split()
    assert run(["true"], memory_mib=64, cpus=1).ok
    assert str(os.getpid()) in before
    assert len(before) > 1, "the control: somebody is"
    assert {*before} <= {*service.joinpath("cgroup.procs").read_text().split()}
    assert not (service / "cgroup.subtree_control").read_text().split()


def test_a_delegation_that_comes_later_is_seen() -> None:
    """Nothing that is remembered of a host says otherwise: a unit gets it while the host runs."""
    service, main = CGROUPS / "system.slice/late.service", CGROUPS / "system.slice/late.service/main"
    main.mkdir(parents=True)
    cache = Path("/home/plain/cache")

    def attempt(*words: str) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "immure", "run", *words, "--", "cat", "/proc/self/cgroup"]
        started = f'echo $$ >{main}/cgroup.procs; exec busybox su plain -s /bin/sh -c \'exec "$@"\' -- sh "$@"'
        env = {**os.environ, "XDG_CACHE_HOME": str(cache), "HOME": "/home/plain"}
        return subprocess.run(["sh", "-c", started, "sh", *command], env=env, capture_output=True)

    refused = attempt("--memory", "64")
    assert (refused.returncode, attempt().returncode) == (125, 0), refused.stderr
    assert f"{main} can't be written by this user".encode() in refused.stderr
    assert [*(cache / "immure").iterdir()], "the control: something is remembered"
    try:
        (service / "cgroup.subtree_control").write_text("+memory +pids")
        for path in (service, service / "cgroup.procs"):
            os.chown(path, 1000, 1000)
        granted = attempt("--memory", "64")
        assert granted.returncode == 0, granted.stderr
    finally:
        main.rmdir()
        service.rmdir()
