"""Boxes in virtual machines as their callers have them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immure import (
    AsyncSandbox,
    BoxLost,
    Pool,
    ProtectionUnavailable,
    RuntimeUnavailable,
    Sandbox,
    SetupFailed,
    SpecError,
    run,
)
from immure.engine.kvm import kvm_facts
from immure.host.tree import below
from immure.plan import qemu_arguments
from layouts import archive, archive_of, entry, layout_of

from .machines import make_image

pytestmark = pytest.mark.rootless
PARTS = {"kernel.machine", "files.mac", "syscalls.default_deny", "network.namespace", "identity.no_host_root"}


@pytest.fixture(autouse=True)
def named(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMURE_KERNEL", str(kernel))


@pytest.fixture
def spec(image: Path) -> dict[str, Any]:
    return {"runtime": "qemu", "level": "L3", "image": str(image), "workdir": "/"}


@pytest.fixture
def box(spec: dict[str, Any]) -> Iterator[Sandbox]:
    with Sandbox(**spec) as made:
        yield made


def has_hardware() -> bool:
    return kvm_facts().kind == "hardware"


class TestLevel:
    def test_it_is_measured(self, box: Sandbox) -> None:
        evidence = box.evidence()
        assert (evidence.boundary, evidence.awarded) == ("vm", "L4" if has_hardware() else "L3")
        assert evidence.hardware == has_hardware()
        assert {one.part for one in evidence.parts} >= PARTS
        assert all(one.held for one in evidence.parts), evidence.parts
        (kernel,) = [one for one in evidence.parts if one.part == "kernel.machine"]
        assert "1 process of" in kernel.observed
        assert os.uname().release not in kernel.observed

    def test_l4_is_the_processor_s(self, image: Path) -> None:
        if has_hardware():
            assert run(["/bin/true"], level="L4", image=str(image), workdir="/").level.awarded == "L4"
            return
        with pytest.raises(RuntimeUnavailable, match="L4") as caught:
            run(["/bin/true"], level="L4", image=str(image))
        assert caught.value.hint
        assert caught.value.have

    def test_the_report_says_how(self, spec: dict[str, Any]) -> None:
        report = {one.clause: one for one in run(["/bin/true"], **spec).report}
        assert "QEMU" in report["runtime"].by
        assert has_hardware() or "emulated in software: this host has" in report["runtime"].by
        assert report["files.landlock"].got == "approximated"
        assert report["limits.memory_mib"].got == "exact"


class TestLandlock:
    """Within, in a kernel that is asked when it runs."""

    UNCOVERED = ("/bin/cat", "/.immure/uncovered")

    def test_one_that_is_required(self, spec: dict[str, Any]) -> None:
        with Sandbox(protections={"landlock": "required"}, **spec) as box:
            (mac,) = [one for one in box.evidence().parts if one.part == "files.mac"]
            assert mac.held
            assert "outside of Landlock's rules 13 (there 0)" in mac.observed
            for user in (0, 1000):
                assert "Permission denied" in box.exec(self.UNCOVERED, user=user).stderr.text()
                ended = box.exec(["/bin/cat", "/.immure/sentinel", "/etc/passwd"], user=user)
                assert ended.ok, "the control"
            (clause,) = [one for one in box.exec(["/bin/true"]).report if one.clause == "files.landlock"]
            assert clause.got == "exact"

    def test_rights_are_those_of_the_mounts(self, spec: dict[str, Any]) -> None:
        mounts = [{"tmpfs": "/work"}]
        with Sandbox(protections={"landlock": "required"}, mounts=mounts, **spec) as box:
            steps = ("cp /bin/busybox /work/busybox", "mv /work/busybox /tmp/busybox", "ln /tmp/busybox /tmp/sh")
            script = " && ".join(f"busybox {step}" for step in steps) + " && /tmp/sh -c 'echo moved'"
            assert box.exec(["/bin/sh", "-c", script]).stdout == b"moved\n"

    def test_a_kernel_without_it(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(qemu_arguments, "_KERNEL", (*qemu_arguments._KERNEL, "lsm="))
        with pytest.raises(ProtectionUnavailable, match="landlock") as caught:
            run(["/bin/true"], protections={"landlock": "required"}, env={"A": "without"}, **spec)
        assert os.environ["IMMURE_KERNEL"] in (caught.value.have or "")
        assert "ABI 0" in (caught.value.have or "")
        with Sandbox(env={"A": "without"}, **spec) as box:
            assert box.exec(self.UNCOVERED).ok
            (mac,) = [one for one in box.evidence().parts if one.part == "files.mac"]
            assert mac.held
            assert "outside of Landlock's rules 0 (there 0)" in mac.observed


class TestBox:
    def test_one_command(self, spec: dict[str, Any]) -> None:
        result = run(["/bin/sh", "-c", "cat; id -u; exit 7"], stdin=b"in\n", **spec)
        assert (result.stdout, result.exit.code) == (b"in\n1000\n", 7)

    def test_environment_name_and_user(self, spec: dict[str, Any]) -> None:
        result = run(
            ["/bin/sh", "-c", "echo $A; hostname; id -u"], env={"A": "b c"}, name="fine", **{**spec, "user": 7}
        )
        assert result.stdout == b"b c\nfine\n7\n"

    def test_private_space(self, spec: dict[str, Any]) -> None:
        script = "cat /dev/zero > /tmp/a; ls -l /tmp/a | grep -o ' [0-9]* [A-Z]'; touch /x"
        mounts = [{"tmpfs": "/tmp", "size_mib": 8}]
        for bounds, most_mib in (({"disk_mib": 8}, 10), ({"mounts": mounts}, 8)):
            said = run(["/bin/busybox", "sh", "-c", script.replace("grep", "/bin/busybox grep")], **bounds, **spec)
            assert 7 << 20 < int(said.stdout.text().split()[0]) <= most_mib << 20
            assert "Read-only" in said.stderr.text()

    def test_a_tmpfs(self, spec: dict[str, Any], image: Path) -> None:
        mounts = [{"tmpfs": "/tmp/own", "size_mib": 2}]
        said = run(["/bin/sh", "-c", "cat /proc/mounts"], mounts=mounts, **spec).stdout.text()
        assert "tmpfs /tmp/own tmpfs rw,nosuid,nodev,relatime,size=2048k" in said

    def test_memory_is_what_was_written(self, spec: dict[str, Any]) -> None:
        said = run(["/bin/cat", "/proc/meminfo"], memory_mib=128, **spec).stdout.text()
        total_kib = int(said.split()[1])
        assert 80 << 10 < total_kib < 128 << 10

    def test_processes_are_counted(self, spec: dict[str, Any]) -> None:
        script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do sleep 5 & done; wait"
        said = run(["/bin/sh", "-c", script], pids=8, timeout_s=30, **spec)
        assert "can't fork" in said.stderr.text()

    def test_a_time_limit(self, spec: dict[str, Any]) -> None:
        result = run(["/bin/sleep", "60"], timeout_s=2, **spec)
        assert result.exit.kind == "timeout"

    def test_verbs(self, box: Sandbox) -> None:
        box.files.write("/tmp/a", b"x" * 100_000)
        assert box.files.read("/tmp/a") == b"x" * 100_000
        with box.start(["/bin/sleep", "60"]) as sleeping:
            box.pause()
            box.resume()
            sleeping.kill()
            assert sleeping.wait().exit.signal == signal.SIGKILL
        assert box.stats().resident_bytes > 10 << 20

    def test_awaited(self, spec: dict[str, Any]) -> None:
        async def use() -> bytes:
            async with AsyncSandbox(**spec) as box:
                assert box.evidence().boundary == "vm"
                return bytes((await box.exec(["/bin/hostname"])).stdout)

        assert asyncio.run(use()) == b"immure\n"

    def test_from_a_pool(self, spec: dict[str, Any]) -> None:
        with Pool(size=1, **spec) as pool, pool.claim() as box:
            assert box.exec(["/bin/true"]).ok

    def test_a_content_that_changes(self, kernel: Path, tmp_path: Path) -> None:
        image = make_image(tmp_path / "root")
        spec = {"runtime": "qemu", "level": "L3", "image": str(image), "workdir": "/"}
        for text in (b"one", b"two"):
            (image / "etc/deep").mkdir(exist_ok=True)
            (image / "etc/deep/file").write_bytes(text)
            assert run(["/bin/cat", "/etc/deep/file"], **spec).stdout == text

    def test_an_oci_layout(self, kernel: Path, tmp_path: Path) -> None:
        layers = (archive_of(make_image(tmp_path / "root")), archive(entry("etc/upper", b"above\n")))
        layout_of(tmp_path / "layout", *layers)
        spec = {"runtime": "qemu", "level": "L3", "image": str(tmp_path / "layout"), "workdir": "/"}
        assert run(["/bin/cat", "/etc/upper"], **spec).stdout == b"above\n"

    def test_two_have_other_randomness(self, spec: dict[str, Any]) -> None:
        told = {bytes(run(["/bin/od", "-N16", "-tx1", "/dev/urandom"], **spec).stdout) for _ in range(2)}
        assert len(told) == 2


class TestRefusals:
    @pytest.mark.parametrize(
        ("keywords", "match"),
        [
            ({"mounts": [("/etc/passwd", "/mnt", "rw")]}, "can't write to a file"),
            ({"network": "host", "level": "L1"}, "no network"),
            ({"namespaces": "none", "level": "L1"}, "namespaces"),
            ({"memory_mib": 32}, "does not fit"),
        ],
        ids=str,
    )
    def test_what_a_machine_can_not_have(self, spec: dict[str, Any], keywords: dict[str, Any], match: str) -> None:
        with pytest.raises(SpecError, match=match):
            run(["/bin/true"], **{**spec, **keywords})

    def test_traces(self, box: Sandbox) -> None:
        with pytest.raises(RuntimeUnavailable, match="gvisor"):
            box.trace()


class TestFaults:
    def test_no_kernel(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("IMMURE_KERNEL", str(tmp_path / "none"))
        with pytest.raises(RuntimeUnavailable, match="IMMURE_KERNEL") as caught:
            run(["/bin/true"], **spec)
        assert str(tmp_path / "none") in (caught.value.have or "")

    def test_what_is_no_kernel(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "kernel").write_bytes(b"no kernel")
        monkeypatch.setenv("IMMURE_KERNEL", str(tmp_path / "kernel"))
        with pytest.raises(SetupFailed, match="did not come up") as caught:
            run(["/bin/true"], **spec)
        assert "kernel" in (caught.value.have or "")

    def test_another_program(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IMMURE_QEMU", "/usr/bin/env")
        with pytest.raises(RuntimeUnavailable, match="another program"):
            run(["/bin/true"], **spec)

    def test_a_machine_that_is_killed(self, spec: dict[str, Any], box: Sandbox) -> None:
        with Sandbox(**spec) as other:
            running = box.start(["/bin/sleep", "60"])
            (vmm,) = below(box._box.pid)
            os.kill(vmm, signal.SIGKILL)
            with pytest.raises(BoxLost):
                running.wait(10)
            with pytest.raises(BoxLost):
                box.exec(["/bin/true"])
            assert other.exec(["/bin/true"]).ok

    def test_a_hog_ends_itself(self, spec: dict[str, Any]) -> None:
        """The machine's memory is all that it gets."""
        with Sandbox(memory_mib=128, **spec) as box:
            result = box.exec(["/bin/sh", "-c", "a=x; while :; do a=$a$a; done"], timeout_s=120)
            assert not result.ok
            assert result.exit.kind != "timeout"
            assert box.exec(["/bin/true"]).ok

    def test_all_of_it_goes_with_the_box(self, spec: dict[str, Any]) -> None:
        box = Sandbox(**spec)
        pids = [box._box.pid, *below(box._box.pid)]
        assert len(pids) == 2
        box.close()
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def test_it_goes_with_a_caller_that_is_killed(self, spec: dict[str, Any]) -> None:
        program = (
            "import sys, time\nfrom immure import Sandbox\n"
            f"box = Sandbox(**{spec!r})\nprint(box._box.pid, flush=True)\ntime.sleep(60)"
        )
        caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert caller.stdout is not None
        first = int(caller.stdout.readline())
        pids = [first, *below(first)]
        caller.kill()
        caller.communicate()
        until = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.monotonic() < until
            time.sleep(0.02)


class TestCommandLine:
    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        words = (sys.executable, "-m", "immure", *words)
        return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)

    def test_run(self, image: Path) -> None:
        for _ in range(2):
            ended = self.command(
                *("run", "--runtime", "qemu", "--level", "L3", "--image", str(image), "-w", "/"),
                *("--", "/bin/cat", "/proc/1/comm"),
            )
            assert (ended.returncode, ended.stdout, ended.stderr) == (0, "immure-guest\n", "")

    def test_a_box_that_is_kept(self, image: Path) -> None:
        name = f"machine-{os.getpid()}"
        spec = ("--runtime", "qemu", "--level", "L3", "--image", str(image), "-w", "/")
        try:
            assert self.command("run", "--keep", "--name", name, *spec, "--", "/bin/true").returncode == 0
            assert self.command("exec", name, "--", "/bin/cat", "/proc/1/comm").stdout == "immure-guest\n"
            assert self.command("exec", "-t", name, "--", "/bin/stty", "size").stdout == "24 80\n"
            for verb, state in (("pause", "paused"), ("resume", "ready")):
                assert self.command(verb, name).returncode == 0
                assert state in self.command("ps").stdout
            refused = self.command("trace", name)
            assert (refused.returncode, "gvisor" in refused.stderr) == (2, True)
        finally:
            ended = self.command("kill", name)
        assert ended.returncode == 0

    def test_doctor_says_which_package_brings_a_kernel(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("IMMURE_KERNEL", str(tmp_path / "none"))
        four = json.loads(self.command("doctor", "--json").stdout)["levels"]["L4"]
        (kernel,) = [one for one in four["missing"] if "kernel" in one["need"]]
        assert "linux-image-cloud-amd64" in kernel["command"]

    def test_dry_run(self, image: Path) -> None:
        ended = self.command("run", "--dry-run", "--runtime", "qemu", "--level", "L3", "--image", str(image), "--", "x")
        assert "microvm" in ended.stdout

    def test_doctor(self) -> None:
        four = json.loads(self.command("doctor", "--json").stdout)["levels"]["L4"]
        assert four["reachable"] == has_hardware()
        assert not [one for one in four["missing"] if "kernel" in one["need"]]
