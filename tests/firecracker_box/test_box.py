"""Boxes in machines of Firecracker's, as their callers have them. One boots, and all go on from its memory."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from immure import AsyncSandbox, BoxError, ExecFailed, Pool, RuntimeUnavailable, Sandbox, SpecError, run
from immure.engine.kvm import kvm_facts
from immure.host.tree import below
from machine.machines import make_image

PARTS = {"kernel.machine", "files.mac", "syscalls.default_deny", "network.namespace", "identity.no_host_root"}


def has_hardware() -> bool:
    return kvm_facts().kind == "hardware"


def machines() -> set[str]:
    """Those that have booted."""
    return {one.name for one in Path(os.environ["XDG_CACHE_HOME"], "immure/images").glob("[!.]*.machine")}


def said(box: Sandbox, script: str, **keywords: Any) -> str:
    """What a shell in the machine says."""
    return box.exec(["/bin/sh", "-c", f"exec 2>&1; {script}"], **keywords).stdout.text()


@pytest.mark.rootless
class TestLevel:
    def test_it_is_measured(self, shared: Sandbox) -> None:
        evidence = shared.evidence()
        assert (evidence.boundary, evidence.awarded) == ("vm", "L4" if has_hardware() else "L3")
        assert (evidence.hardware, evidence.taken) == (has_hardware(), "before_first_command")
        assert {one.part for one in evidence.parts} >= PARTS
        assert all(one.held for one in evidence.parts), evidence.parts
        (kernel,) = [one for one in evidence.parts if one.part == "kernel.machine"]
        assert "1 process of /machine/firecracker" in kernel.observed
        assert os.uname().release not in kernel.observed

    def test_l4_is_the_processor_s(self, spec: dict[str, Any]) -> None:
        if has_hardware():
            assert run(["/bin/true"], **{**spec, "level": "L4"}).level.awarded == "L4"
            return
        with pytest.raises(RuntimeUnavailable, match="L4") as caught:
            run(["/bin/true"], **{**spec, "level": "L4"})
        assert caught.value.have

    def test_the_report_says_how(self, shared: Sandbox) -> None:
        report = {one.clause: one for one in shared.exec(["/bin/true"]).report}
        by = report["runtime"].by
        assert "Firecracker 1." in by
        assert "from the memory of a machine that had booted" in by
        assert has_hardware() or "this host has" in by
        assert report["files.landlock"].got == "approximated"

    def test_the_machine_is_kvm_s_and_confined(self, shared: Sandbox) -> None:
        (vmm,) = below(shared._box.pid)
        opened = {str(one.readlink()) for one in Path(f"/proc/{vmm}/fd").iterdir()}
        assert "anon_inode:kvm-vm" in opened
        paths = {one for one in opened if one.startswith("/") and not one.startswith("/memfd:")}
        assert paths == {"/machine/image", "/machine/memory", "/dev/kvm", "/dev/null"}, opened
        for thread in Path(f"/proc/{vmm}/task").iterdir():
            status = (thread / "status").read_text()
            assert "NoNewPrivs:\t1" in status
            assert "Seccomp:\t2" in status
            assert "CapEff:\t0000000000000000" in status
        maps = Path(f"/proc/{vmm}/uid_map").read_text().split()
        assert maps[1] != "0"
        assert Path(f"/proc/{vmm}/status").read_text().split("Uid:")[1].split()[0] != "0"
        for name in ("user", "mnt", "pid", "net", "ipc", "uts"):
            assert Path(f"/proc/{vmm}/ns/{name}").readlink() != Path(f"/proc/self/ns/{name}").readlink()


@pytest.mark.rootless
class TestVerbs:
    def test_commands(self, shared: Sandbox) -> None:
        result = shared.exec(["/bin/sh", "-c", "cat; id -u; exit 7"], stdin=b"in\n")
        assert (result.stdout, result.exit.code) == (b"in\n1000\n", 7)
        with pytest.raises(ExecFailed, match="not found"):
            shared.exec(["/bin/none"])

    def test_another_kernel_answers(self, shared: Sandbox) -> None:
        assert said(shared, "cat /proc/version").split()[2] != os.uname().release
        assert said(shared, "cat /proc/1/comm") == "immure-guest\n"

    def test_files(self, shared: Sandbox) -> None:
        content = os.urandom(1 << 20)
        shared.files.write("/tmp/large", content)
        assert shared.files.read("/tmp/large") == content
        shared.files.remove("/tmp/large")

    def test_streams(self, shared: Sandbox) -> None:
        content = os.urandom(500_000)
        assert shared.exec(["/bin/cat"], stdin=content).stdout == content

    def test_a_terminal(self, shared: Sandbox) -> None:
        with shared.start(["/bin/sh", "-c", "stty size; read line; echo $line"], pty=(100, 30)) as shell:
            assert shell.stdout.readline() == b"30 100\r\n"
            assert shell.stdin is not None
            shell.stdin.write(b"typed\n")
            assert b"typed" in shell.stdout.read()
            assert shell.wait().ok

    def test_pauses_and_signals(self, shared: Sandbox) -> None:
        with shared.start(["/bin/sleep", "100"]) as sleeping:
            shared.pause()
            assert shared.state == "paused"
            shared.resume()
            sleeping.signal(signal.SIGTERM)
            assert sleeping.wait().exit.signal == signal.SIGTERM

    def test_what_it_uses(self, shared: Sandbox) -> None:
        stats = shared.stats()
        assert 4 << 20 < stats.resident_bytes < 128 << 20
        assert stats.processes is None

    def test_time_and_randomness_are_the_host_s_to_give(self, shared: Sandbox) -> None:
        assert abs(time.time() - float(said(shared, "date +%s"))) < 10
        assert len(said(shared, "od -An -N32 -tx1 /dev/random").split()) == 32

    def test_no_device_leads_out(self, shared: Sandbox) -> None:
        own = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
        assert said(shared, "ls /dev").split() == own.split()
        assert "Read-only file system" in said(shared, "touch /bin/x", user=0)


class TestBoxes:
    def test_one_command_with_a_name_and_an_environment(self, spec: dict[str, Any]) -> None:
        result = run(["/bin/sh", "-c", "echo $A; hostname"], env={"A": "b c"}, name="fine", **spec)
        assert result.stdout == b"b c\nfine\n"

    def test_it_goes_on_from_one_that_has_booted(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            assert box._box.console() == b"", "nothing has booted here"

    def test_two_have_other_randomness(self, spec: dict[str, Any]) -> None:
        told = {bytes(run(["/bin/od", "-N16", "-tx1", "/dev/urandom"], **spec).stdout) for _ in range(2)}
        assert len(told) == 2

    def test_awaited(self, spec: dict[str, Any]) -> None:
        async def use() -> bytes:
            async with AsyncSandbox(**spec) as box:
                assert box.evidence().boundary == "vm"
                return bytes((await box.exec(["/bin/hostname"])).stdout)

        assert asyncio.run(use()) == b"immure\n"

    def test_from_a_pool(self, spec: dict[str, Any]) -> None:
        with Pool(size=1, **spec) as pool, pool.claim() as box:
            assert box.exec(["/bin/true"]).ok

    def test_a_mount(self, spec: dict[str, Any], tmp_path: Path) -> None:
        """It is a second disk, so that such a machine boots once by itself."""
        tmp_path.chmod(0o755)
        (tmp_path / "file").write_bytes(b"of the host")
        said = run(["/bin/sh", "-c", "cat /work/file; touch /work/x"], mounts=[(tmp_path, "/work", "ro")], **spec)
        assert said.stdout == b"of the host"
        assert b"Read-only" in said.stderr

    def test_a_time_limit(self, spec: dict[str, Any]) -> None:
        assert run(["/bin/sleep", "60"], timeout_s=2, **spec).exit.kind == "timeout"

    @pytest.mark.parametrize(
        ("keywords", "match"),
        [
            ({"network": "host", "level": "L1"}, "no network"),
            ({"memory_mib": 32}, "does not fit"),
            ({"cpus": 33}, "processors"),
        ],
        ids=str,
    )
    def test_what_a_machine_can_not_have(
        self, spec: dict[str, Any], keywords: dict[str, Any], match: str, tmp_path: Path
    ) -> None:
        """It is told before anything boots."""
        other = make_image(tmp_path / "root")
        (other / "etc/other").touch()
        before = machines()
        if "cpus" in keywords:
            keywords = {**keywords, "protections": {"cpus": "best_effort"}}
        with pytest.raises(SpecError, match=match):
            run(["/bin/true"], **{**spec, "image": str(other), **keywords})
        assert machines() == before

    def test_a_trace_is_gvisor_s(self, shared: Sandbox) -> None:
        with pytest.raises((BoxError, RuntimeUnavailable), match="gvisor"):
            shared.trace()


class TestCommandLine:
    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        words = (sys.executable, "-m", "immure", *words)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)

    def words(self, spec: dict[str, Any]) -> tuple[str, ...]:
        image = ("--image", spec["image"], "-w", "/", "--memory", "128")
        return "--runtime", "firecracker", "--level", "L3", *image

    def test_run(self, spec: dict[str, Any]) -> None:
        ended = self.command("run", *self.words(spec), "--", "/bin/cat", "/proc/1/comm")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "immure-guest\n", "")

    def test_a_box_that_is_kept(self, spec: dict[str, Any]) -> None:
        name = f"firecracker-{os.getpid()}"
        try:
            kept = self.command("run", "--keep", "--name", name, *self.words(spec), "--", "/bin/true")
            assert kept.returncode == 0, kept.stderr
            assert self.command("exec", name, "--", "/bin/cat", "/proc/1/comm").stdout == "immure-guest\n"
            assert self.command("exec", "-t", name, "--", "/bin/stty", "size").stdout == "24 80\n"
        finally:
            ended = self.command("kill", name)
        assert ended.returncode == 0

    def test_dry_run_boots_nothing(self, spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        ended = self.command("run", "--dry-run", *self.words(spec), "--", "x")
        assert "start /machine/firecracker" in ended.stdout
        assert "mknod dev/kvm c 10 232" in ended.stdout or "bind /dev/kvm on dev/kvm" in ended.stdout
        assert not list(tmp_path.glob("immure/images/*.machine"))

    def test_doctor(self, settings: None) -> None:
        four = json.loads(self.command("doctor", "--json").stdout)["levels"]["L4"]
        assert four["reachable"] == has_hardware()
