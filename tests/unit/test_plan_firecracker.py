"""The plan of a box in a machine of Firecracker's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hosts import SINGLE, make_facts, of_kind, plain_facts
from test_plan_qemu import FOLDER, HARDWARE, SLOW, guest, inputs_of, machine, spec_of

from immure.errors import RuntimeUnavailable, SpecError
from immure.host.facts import HostFacts, KvmFacts, Missing, ProgramFacts
from immure.plan.compile import compile_plan
from immure.plan.firecracker import CONFIG, MEMORY, PROGRAM, STATE
from immure.plan.launching import make_launch
from immure.plan.model import Plan
from immure.plan.operations import NODEV, NOEXEC, NOSUID, RDONLY, Bind, Device, File
from immure.plan.restoring import copied_launch
from immure.policy.landlock import Fs
from immure.spec.models import SandboxSpec

BOOTED = (("/cache/one/memory", (5,)), ("/cache/one/state", (6,)))
VMM = ProgramFacts("/opt/firecracker", "1.12.1", (1,))


def asked(**fields: Any) -> SandboxSpec:
    return spec_of(**{"runtime": "firecracker", **fields})


def compiled(spec: SandboxSpec, facts: HostFacts | None = None, *, kvm: KvmFacts = SLOW, **changes: Any) -> Plan:
    found = machine(vmm=VMM, kvm=kvm, **changes)
    return compile_plan(spec, facts or make_facts(), inputs_of(spec, machine=found, kvm=kvm))


def told(plan: Plan) -> dict[str, Any]:
    """What Firecracker reads."""
    (file,) = [op for op in of_kind(plan.template, File) if f"/{op.path}" == CONFIG]
    return msgspec.json.decode(file.data)


class TestLevels:
    def test_l4_is_hardware(self) -> None:
        assert compiled(asked(level="L4"), kvm=HARDWARE).expects["hardware"] is True
        assert compiled(asked()).expects["hardware"] is False
        with pytest.raises(RuntimeUnavailable, match="L4"):
            compiled(asked(level="L4"))

    def test_without_kvm_there_is_none(self) -> None:
        missing = Missing(need="/dev/kvm that this user may open", have="Permission denied", command="add the user")
        with pytest.raises(RuntimeUnavailable, match="KVM alone") as caught:
            compiled(asked(), kvm=KvmFacts("absent", None, missing))
        assert (caught.value.have, caught.value.hint) == ("Permission denied", "add the user")


class TestOuter:
    @pytest.mark.parametrize("facts", [make_facts(), plain_facts(), plain_facts(ids=SINGLE)], ids=str)
    def test_it_is_a_box_of_l2_with_kvm_s_device(self, facts: HostFacts) -> None:
        plan = compiled(asked(), facts)
        assert plan.landlock is not None
        assert plan.command.filters
        assert plan.command.keep_capabilities == 0
        assert "/dev/kvm" in {rule.path for rule in plan.landlock.rules}
        nodes = {(op.path, op.major, op.minor) for op in of_kind(plan.template, Device)}
        shown = {op.path for op in of_kind(plan.template, Bind)}
        assert (("dev/kvm", 10, 232) in nodes) == facts.root
        assert ("dev/kvm" in shown) == (not facts.root)

    def test_what_is_shown_can_not_be_written(self) -> None:
        plan = compiled(asked(), booted=BOOTED)
        binds = {f"/{op.path}": op for op in of_kind(plan.template, Bind) if op.path.startswith("machine/")}
        assert {path: binds[path].source for path in (PROGRAM, MEMORY, STATE)} == {
            PROGRAM: "/opt/firecracker",
            MEMORY: "/cache/one/memory",
            STATE: "/cache/one/state",
        }
        assert all(op.attributes & 1 for op in binds.values())


class TestMachine:
    def test_one_that_boots(self) -> None:
        plan = compiled(asked(limits={"memory_mib": 256, "cpus": 1}, protections={"cpus": "best_effort"}))
        assert plan.carrier[-2:] == ("--config-file", CONFIG)
        config = told(plan)
        assert config["machine-config"] == {"vcpu_count": 1, "mem_size_mib": 256}
        assert [one["is_read_only"] for one in config["drives"]] == [True]
        assert set(config) == {"boot-source", "drives", "machine-config", "vsock", "entropy"}

    def test_one_that_goes_on(self) -> None:
        plan = compiled(asked(), booted=BOOTED)
        assert "--config-file" not in plan.carrier
        (clause,) = [one for one in plan.report if one.clause == "runtime"]
        assert "had booted" in clause.by

    def test_an_emulated_kernel_is_told_so(self) -> None:
        words = {kvm.kind: told(compiled(asked(), kvm=kvm))["boot-source"]["boot_args"] for kvm in (SLOW, HARDWARE)}
        assert "noxsave" in words["emulating"]
        assert "noxsave" not in words["hardware"]
        assert all("IMMURE_CHANNEL=vsock:1" in one for one in words.values())

    def test_mounts_are_a_second_disk(self) -> None:
        spec = asked(files={"mounts": [{"source": "/a", "target": "/b"}]})
        files = (("/cache/first.cpio", (3,)), ("/cache/image.erofs", (4,)), ("/cache/mounts.erofs", (7,)))
        config = told(compiled(spec, files=files))
        assert [one["drive_id"] for one in config["drives"]] == ["image", "mounts"]
        assert "IMMURE_MOUNTS=/dev/vdb" in config["boot-source"]["boot_args"]

    def test_its_own_disk_is_a_last_one(self) -> None:
        plan = compiled(asked(limits={"disk_mib": 600}), booted=BOOTED)
        drives = {one["drive_id"]: one for one in told(plan)["drives"]}
        assert list(drives) == ["image", "own"]
        assert (drives["own"]["path_on_host"], drives["own"]["is_read_only"]) == ("/proc/self/fd/4", False)
        (shown,) = [op for op in of_kind(plan.template, Bind) if op.path == "machine/disks"]
        assert (shown.source, shown.attributes) == ("/cache/disks", RDONLY | NOSUID | NODEV | NOEXEC)
        assert plan.landlock is not None
        (access,) = [rule.access for rule in plan.landlock.rules if rule.path == "/machine/disks"]
        assert access == Fs.READ_FILE | Fs.WRITE_FILE
        assert [op["device"] for op in guest(plan)["root"] if op["op"] == "disk"] == ["vdb"]

    def test_without_one(self) -> None:
        plan = compiled(asked(), booted=BOOTED)
        assert plan.disk is None
        assert [one["drive_id"] for one in told(plan)["drives"]] == ["image"]
        assert plan.landlock is not None
        assert "/machine/disks" not in {rule.path for rule in plan.landlock.rules}
        assert "machine/disks" not in {op.path for op in plan.template if isinstance(op, Bind)}

    def test_too_many_processors(self) -> None:
        with pytest.raises(SpecError, match="processors"):
            compiled(asked(limits={"cpus": 33}, protections={"cpus": "best_effort"}))

    def test_init_is_told_what_any_machine_s_is(self) -> None:
        assert guest(compiled(asked())) == guest(compiled(asked(), booted=BOOTED))


class TestLaunch:
    def test_it_names_what_it_depends_on(self) -> None:
        spec = asked()
        inputs = inputs_of(spec, machine=machine(vmm=VMM, booted=BOOTED))
        launch = make_launch(compile_plan(spec, make_facts(), inputs), spec, make_facts(), inputs)
        assert {("/opt/firecracker", (1,)), *BOOTED} <= set(launch.programs)
        assert (launch.runtime, launch.mac) == ("firecracker", "firecracker/1.12.1")

    def test_a_copy_needs_none_that_had_booted(self) -> None:
        spec = asked()
        for booted in (BOOTED, ()):
            inputs = inputs_of(spec, machine=machine(vmm=VMM, booted=booted))
            launch = make_launch(compile_plan(spec, make_facts(), inputs), spec, make_facts(), inputs)
            copied = copied_launch(launch)
            assert not set(copied.programs) & set(BOOTED)
            assert "--config-file" not in copied.carrier
            assert b"/cache/one" not in copied.wire
            assert copied.plan_sha256 != launch.plan_sha256 or not booted
            assert copied.guest == launch.guest
        assert FOLDER.path == "/images/one"
