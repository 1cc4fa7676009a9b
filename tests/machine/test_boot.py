"""Our init as the first process of a virtual machine, and what its commands find there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from immure import BoxLost, ExecFailed, SetupFailed
from immure.engine.machine_images import packed_folder
from immure.host.tree import below
from immure.plan.qemu_arguments import CONSOLE
from immure.runtimes.process.spawner import receive

from .machines import (
    MachineSandbox,
    booted,
    make_image,
    moment,
    outer_box,
    start_qemu,
)

pytestmark = pytest.mark.rootless


@pytest.fixture(scope="module")
def machine(kernel: Path, image: Path) -> Iterator[MachineSandbox]:
    with booted(kernel, image) as box:
        yield box


class TestWithin:
    def test_another_kernel_answers(self, machine: MachineSandbox) -> None:
        assert machine.said("cat /proc/version").split()[2] != os.uname().release
        assert machine.said("cat /proc/sys/kernel/hostname") == "machine\n"

    def test_our_init_is_its_first_process(self, machine: MachineSandbox) -> None:
        assert machine.said("cat /proc/1/comm") == "immure-guest\n"
        assert "Operation not permitted" in machine.said("kill -9 1; kill -TERM 1")
        assert machine.exec(["/bin/true"]).ok
        assert machine.said("kill -9 1", user=0) == ""
        assert machine.exec(["/bin/true"]).ok, "the kernel lets nobody kill it"

    def test_the_whole_last_stage(self, machine: MachineSandbox) -> None:
        status = machine.files.read("/proc/self/status").decode()
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert lines["Uid"].split() == ["1000"] * 4
        assert lines["Groups"].split() == []
        assert {lines[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")

    def test_the_image_is_sealed(self, machine: MachineSandbox) -> None:
        for user in (1000, 0):
            said = machine.said("touch /bin/x; touch /x; touch /dev/x; touch /.immure/x", user=user)
            assert said.count("Read-only file system") == 4, said
        assert machine.said("touch /tmp/x /dev/shm/x && ls /tmp") == "x\n", "the control"

    def test_no_device_leads_out(self, machine: MachineSandbox) -> None:
        own = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
        assert machine.said("ls /dev").split() == own.split()
        assert machine.said("ls /sys /.immure/space /image /own", user=0).count("No such file") == 2
        assert "/dev/vda" not in machine.said("cat /proc/mounts")

    def test_there_is_no_network_but_its_own(self, machine: MachineSandbox) -> None:
        up = [line for line in machine.said("ip -o link").splitlines() if "UP" in line.split()[2]]
        assert [line.split()[1] for line in up] == ["lo:"]
        assert "Network unreachable" in machine.said("ip route get 192.0.2.1", user=0).replace("is ", "")

    def test_time_and_randomness_are_the_host_s_to_give(self, machine: MachineSandbox) -> None:
        before = time.time()
        told = float(machine.said("date +%s"))
        assert before - 2 < told < time.time() + 1
        assert len(machine.said("od -An -N32 -tx1 /dev/random").split()) == 32

    def test_a_kernel_is_hidden_from_its_users(self, machine: MachineSandbox) -> None:
        assert "Permission denied" in machine.said("cat /proc/1/environ; cat /proc/1/maps; ls /proc/1/fd")

    def test_on_the_host_there_is_nothing_but_qemu(self, machine: MachineSandbox) -> None:
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in below(machine.outer._box.pid)}
        assert names == {"qemu-system-x86"}
        (vmm,) = below(machine.outer._box.pid)
        status = Path(f"/proc/{vmm}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        assert "CapEff:\t0000000000000000" in status


class TestVerbs:
    def test_streams_in_and_out(self, machine: MachineSandbox) -> None:
        content = os.urandom(3 << 20)
        assert machine.exec(["/bin/cat"], stdin=content, output_mib=8).stdout == content

    def test_files(self, machine: MachineSandbox) -> None:
        content = os.urandom(5 << 20)
        machine.files.write("/tmp/large", content)
        assert machine.files.read("/tmp/large") == content
        machine.files.remove("/tmp/large")

    def test_a_terminal(self, machine: MachineSandbox) -> None:
        with machine.start(["/bin/sh", "-c", "stty size; read line; echo $line"], pty=(100, 30), workdir="/") as shell:
            assert shell.stdout.readline() == b"30 100\r\n"
            assert shell.stdin is not None
            shell.stdin.write(b"typed\n")
            assert b"typed" in shell.stdout.read()
            assert shell.wait().ok

    def test_signals_and_pauses(self, machine: MachineSandbox) -> None:
        with machine.start(["/bin/sleep", "60"], workdir="/") as sleeping:
            machine.pause()
            machine.resume()
            sleeping.signal(signal.SIGTERM)
            assert sleeping.wait().exit.signal == signal.SIGTERM

    def test_many_at_once(self, machine: MachineSandbox) -> None:
        running = [machine.start(["/bin/sh", "-c", f"echo {number}"], workdir="/") for number in range(40)]
        assert [one.wait().stdout.text() for one in running] == [f"{number}\n" for number in range(40)]

    def test_a_command_that_there_is_not(self, machine: MachineSandbox) -> None:
        with pytest.raises(ExecFailed, match="not found"):
            machine.exec(["/bin/none"], workdir="/")


class TestEnds:
    def test_a_machine_ends_with_its_box(self, kernel: Path, image: Path) -> None:
        box = booted(kernel, image)
        running = box.start(["/bin/sleep", "300"], workdir="/")
        pids = below(box.outer._box.pid)
        assert pids
        box.close()
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
        running.close()

    def test_one_whose_vmm_is_killed(self, kernel: Path, image: Path) -> None:
        with booted(kernel, image) as box:
            running = box.start(["/bin/sleep", "300"], workdir="/")
            for pid in below(box.outer._box.pid):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(BoxLost):
                running.wait(10)
            with pytest.raises(BoxLost):
                box.exec(["/bin/true"])

    def test_more_memory_than_it_has_is_not_the_host_s(self, kernel: Path, image: Path) -> None:
        with booted(kernel, image, memory_mib=96) as box:
            hog = ["/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "count=1"]
            assert not box.exec([*hog, "bs=400M"], workdir="/").ok
            assert box.exec([*hog, "bs=4M"], workdir="/").ok, "the control, in a box that lives on"


class TestFaults:
    def test_no_image(self, kernel: Path, tmp_path: Path) -> None:
        nothing = tmp_path / "nothing"
        nothing.write_bytes(bytes(1 << 20))
        assert "immure-init: image /dev/vda: Invalid argument" in console_of(kernel, nothing)

    def test_no_kernel(self, image: Path, tmp_path: Path) -> None:
        other = tmp_path / "kernel"
        other.write_bytes(b"no kernel")
        assert "kernel" in console_of(other, packed_folder(str(image)))

    @pytest.mark.parametrize(
        ("change", "step"),
        [
            ({"moment": {**moment(), "entropy": b"short"}}, "entropy"),
            ({"moment": {"time_ns": 2**64 - 1, "entropy": bytes(64)}}, "clock"),
            ({"root": [{"op": "loopback"}]}, "root"),
        ],
        ids=["entropy", "clock", "root"],
    )
    def test_what_it_can_not_do_is_said(self, kernel: Path, image: Path, change: dict[str, object], step: str) -> None:
        with pytest.raises(SetupFailed) as caught:
            booted(kernel, image, change)
        assert caught.value.step == step

    def test_an_image_s_own_links_lead_nowhere(self, kernel: Path, tmp_path: Path) -> None:
        """What a box has of its own stands on them."""
        hostile = make_image(tmp_path / "hostile")
        for name in ("proc", "dev", "tmp", ".immure", "sys"):
            (hostile / name).symlink_to("/bin")
        with booted(kernel, hostile) as box:
            assert box.said("cat /proc/1/comm; ls /bin/1") == "immure-guest\nls: /bin/1: No such file or directory\n"
            assert box.said("touch /tmp/x; ls /tmp") == "x\n"


def console_of(kernel: Path, image: Path, **machine: object) -> str:
    """What QEMU, the kernel and our init say where no box comes of it."""
    with outer_box(kernel, image) as outer:
        vmm = start_qemu(outer, **machine)
        try:
            vmm.asker.settimeout(60)
            receive(vmm.asker)
            return outer.files.read(CONSOLE).decode(errors="replace") + os.read(vmm.said, 1 << 16).decode()
        finally:
            vmm.close()
