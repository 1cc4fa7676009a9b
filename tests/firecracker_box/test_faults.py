"""What becomes of a box whose machine does not come up, or ends: a clear error in time, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from firecracker import guests
from immure import BoxLost, RuntimeUnavailable, Sandbox, SetupFailed, run
from immure.engine import machines
from immure.host.facts import KvmFacts, Missing
from immure.host.tree import below
from immure.plan import firecracker_config
from immure.runtimes.firecracker import booted
from integration.processes import adopt_orphans, descendants, eventually, running


def firecrackers() -> set[int]:
    """Processes that came of this one and are one."""
    return {one.pid for one in descendants() if one.name == "firecracker" and one.state != "Z"}


def memories() -> int:
    """How many files in memory this process has open for machines."""
    found = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return len([one for one in found if "memfd:immure-co" in str(one.readlink())])


@pytest.fixture(autouse=True)
def nothing_is_left(settings: None) -> Iterator[None]:
    """No process, and no half of a machine that was to boot."""
    adopt_orphans()
    before, held = firecrackers(), memories()
    yield
    until = time.monotonic() + 10
    while firecrackers() - before or memories() != held:
        assert time.monotonic() < until, firecrackers() - before
        time.sleep(0.02)
    cache = Path(os.environ["XDG_CACHE_HOME"])
    assert not list(cache.glob("immure/images/.*.part"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache in which nothing has booted."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(booted, "BOOT_S", 60.0)


class TestStarts:
    def test_no_firecracker(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("IMMURE_FIRECRACKER", str(tmp_path / "none"))
        with pytest.raises(RuntimeUnavailable, match="IMMURE_FIRECRACKER") as caught:
            run(["/bin/true"], **spec)
        assert str(tmp_path / "none") in (caught.value.have or "")
        monkeypatch.delenv("IMMURE_FIRECRACKER")
        monkeypatch.setenv("PATH", "/usr/bin")
        with pytest.raises(RuntimeUnavailable, match="on PATH"):
            run(["/bin/true"], **spec)

    def test_another_program(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("IMMURE_FIRECRACKER", "/usr/bin/env")
        with pytest.raises(RuntimeUnavailable, match="another program"):
            run(["/bin/true"], **spec)

    def test_one_that_is_too_old(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        old = tmp_path / "firecracker"
        old.write_text("#!/bin/sh\necho Firecracker v1.9.1\n")
        old.chmod(0o755)
        monkeypatch.setenv("IMMURE_FIRECRACKER", str(old))
        with pytest.raises(RuntimeUnavailable, match=r"1\.10 or newer") as caught:
            run(["/bin/true"], **spec)
        assert caught.value.have == "1.9.1"

    def test_no_kernel(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("IMMURE_KERNEL", str(tmp_path / "none"))
        with pytest.raises(RuntimeUnavailable, match="IMMURE_KERNEL"):
            run(["/bin/true"], **spec)

    @pytest.mark.usefixtures("elsewhere")
    def test_what_is_no_kernel(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "kernel").write_bytes(b"no kernel")
        monkeypatch.setenv("IMMURE_KERNEL", str(tmp_path / "kernel"))
        with pytest.raises(SetupFailed, match="did not come up") as caught:
            run(["/bin/true"], **spec)
        assert "kernel" in (caught.value.have or "").lower()

    @pytest.mark.usefixtures("elsewhere")
    def test_a_guest_that_ends(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("IMMURE_KERNEL", str(guests.ends(tmp_path)))
        with pytest.raises(SetupFailed, match="did not come up") as caught:
            run(["/bin/true"], **spec)
        assert "hello from a guest" in (caught.value.have or "")

    @pytest.mark.usefixtures("elsewhere")
    def test_a_guest_that_never_greets(
        self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("IMMURE_KERNEL", str(guests.rests(tmp_path)))
        monkeypatch.setattr(booted, "BOOT_S", 3.0)
        began = time.monotonic()
        with pytest.raises(SetupFailed, match="did not come up"):
            run(["/bin/true"], **spec)
        assert time.monotonic() - began < 30

    @pytest.mark.usefixtures("elsewhere")
    def test_a_kernel_that_panics(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        words = (*firecracker_config._KERNEL, "rdinit=/none", "root=/dev/none")
        monkeypatch.setattr(firecracker_config, "_KERNEL", words)
        monkeypatch.setattr(booted, "BOOT_S", 180.0)
        with pytest.raises(SetupFailed, match="did not come up") as caught:
            run(["/bin/true"], **spec)
        assert "Kernel panic" in (caught.value.have or "")

    def test_no_kvm_for_this_user(self, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        missing = Missing(need="/dev/kvm that this user may open", have="Permission denied", command="add the user")
        monkeypatch.setattr(machines, "kvm_facts", lambda: KvmFacts("absent", None, missing))
        with pytest.raises(RuntimeUnavailable, match="KVM alone") as caught:
            run(["/bin/true"], **spec)
        assert (caught.value.have, caught.value.hint) == ("Permission denied", "add the user")


@pytest.mark.rootless
class TestEnds:
    def test_a_machine_that_is_killed(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            running = box.start(["/bin/sleep", "60"])
            (vmm,) = below(box._box.pid)
            os.kill(vmm, signal.SIGKILL)
            with pytest.raises(BoxLost):
                running.wait(10)
            with pytest.raises(BoxLost):
                box.exec(["/bin/true"])
            assert box.state == "failed"

    def test_all_of_it_goes_with_the_box(self, spec: dict[str, Any]) -> None:
        box = Sandbox(**spec)
        pids = [box._box.pid, *below(box._box.pid)]
        assert len(pids) == 2
        box.close()
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def test_it_goes_with_a_caller_that_is_killed(self, spec: dict[str, Any]) -> None:
        program = (
            "import sys, time\nfrom immure import Sandbox\n"
            f"box = Sandbox(**{spec!r})\nprint(box._box.pid, flush=True)\ntime.sleep(600)"
        )
        caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert caller.stdout is not None
        first = int(caller.stdout.readline())
        pids = [first, *below(first)]
        caller.kill()
        caller.communicate()
        assert eventually(lambda: not any(map(running, pids)), within=10)

    def test_a_caller_that_is_killed_while_one_boots(self, spec: dict[str, Any], tmp_path: Path) -> None:
        """What it leaves is not taken for a machine, and another one can boot."""
        program = f"from immure import Sandbox\nSandbox(**{spec!r})"
        before = firecrackers()
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        caller = subprocess.Popen([sys.executable, "-c", program], env=environment)
        until = time.monotonic() + 60
        while not firecrackers() - before:
            assert time.monotonic() < until
            time.sleep(0.02)
        caller.kill()
        caller.wait()
        assert not list((tmp_path / "cache").glob("immure/images/[!.]*.machine"))


class TestMemory:
    """What boxes go on from."""

    def files(self, box: Sandbox) -> tuple[Path, Path]:
        programs = [Path(path) for path, _ in box._launch.programs]
        (memory,) = [one for one in programs if one.name == "memory"]
        return memory, memory.with_name("state")

    def test_it_is_made_anew_where_it_can_not_be_loaded(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            _, state = self.files(box)
        whole = state.read_bytes()
        state.chmod(0o644)
        state.write_bytes(whole[:-100])
        state.chmod(0o444)
        with pytest.raises(SetupFailed, match="can't go on") as caught:
            run(["/bin/true"], **spec)
        assert caught.value.have
        assert not state.exists(), "nobody else is to try it"
        with Sandbox(**spec) as box:
            assert box.exec(["/bin/true"]).ok

    def test_no_box_changes_it(self, spec: dict[str, Any]) -> None:
        with Sandbox(**spec) as box:
            memory, _ = self.files(box)
            before = memory.read_bytes()
            box.files.write("/tmp/marked", b"a mark that is in no other box" * 1000)
            assert memory.read_bytes() == before
            (vmm,) = below(box._box.pid)
            mapped = [line for line in Path(f"/proc/{vmm}/maps").read_text().splitlines() if "/machine/memory" in line]
            assert mapped
            assert {line.split()[1] for line in mapped} == {"rw-p"}, "private"


def test_facts_name_what_a_box_goes_on_from(spec: dict[str, Any]) -> None:
    with Sandbox(**spec) as box:
        names = {Path(path).name for path, _ in box._launch.programs}
    assert {"memory", "state", "firecracker", "vmlinux"} <= names
