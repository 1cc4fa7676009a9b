"""The plan of a box in a virtual machine."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest
from hosts import SINGLE, V1, make_facts, make_inputs, make_spec, of_kind, plain_facts

from immure.errors import ProtectionUnavailable, RuntimeUnavailable, SpecError
from immure.host.facts import (
    DiskFacts,
    HostFacts,
    ImageEntry,
    ImageFolder,
    KvmFacts,
    MachineFacts,
    Missing,
    ProgramFacts,
    SourceFacts,
)
from immure.plan.compile import compile_plan, runtime_of
from immure.plan.filters import compile_filters
from immure.plan.launching import make_launch
from immure.plan.limits import RLIMIT_FSIZE
from immure.plan.machine import IMAGE, KERNEL, PLACE
from immure.plan.model import Plan
from immure.plan.operations import NODEV, NOSUID, Bind, Device, File
from immure.policy.seccomp import load_preset, parse_profile
from immure.spec.models import SandboxSpec

SLOW = KvmFacts("emulating", 790, Missing(need="hardware virtualisation", have="an emulator"))
HARDWARE = KvmFacts("hardware", 1)
DISKS = DiskFacts(folder="/cache/disks", formatter="/sbin/mke2fs")
FOLDER = ImageFolder(
    path="/images/one",
    entries=(ImageEntry(name="bin", kind="folder"), ImageEntry(name="etc", kind="folder")),
    places={},
    listing=("x", ()),
)


def machine(**changes: Any) -> MachineFacts:
    facts = {
        "vmm": ProgramFacts("/usr/bin/qemu-system-x86_64", "7.2.22", (1,)),
        "kernel": ProgramFacts("/boot/guest", "", (2,)),
        "files": (("/cache/first.cpio", (3,)), ("/cache/image.erofs", (4,))),
        "kvm": SLOW,
    }
    return MachineFacts(**{**facts, "disk": DISKS, **changes})


def inputs_of(spec: SandboxSpec, **changes: Any) -> Any:
    around = compile_filters(load_preset("default"), arch="x86_64", kernel=(6, 12), keep=0)
    given = {"image": FOLDER, "machine": machine(), "kvm": SLOW, "around": around, **changes}
    return msgspec.structs.replace(make_inputs(spec), **given)


def compiled(spec: SandboxSpec, facts: HostFacts | None = None, **changes: Any) -> Plan:
    return compile_plan(spec, facts or make_facts(), inputs_of(spec, **changes))


def spec_of(**fields: Any) -> SandboxSpec:
    return make_spec(**{"level": "L3", "runtime": "qemu", "image": "/images/one", **fields})


def guest(plan: Plan) -> dict[str, Any]:
    return msgspec.msgpack.decode(plan.guest)


def argument(plan: Plan, option: str) -> str:
    return plan.carrier[plan.carrier.index(option) + 1]


class TestLevels:
    def test_l4_is_a_machine_by_itself(self) -> None:
        assert runtime_of(make_spec(level="L4")) == "qemu"
        assert runtime_of(make_spec(level="L3")) == "gvisor"

    def test_l4_is_hardware(self) -> None:
        plan = compiled(spec_of(level="L4"), kvm=HARDWARE, machine=machine(kvm=HARDWARE))
        assert (argument(plan, "-accel"), argument(plan, "-cpu")) == ("kvm", "host")
        assert plan.expects["hardware"] is True
        assert ("dev/kvm", 10, 232) in {(op.path, op.major, op.minor) for op in of_kind(plan.template, Device)}
        plain = compiled(spec_of(level="L4"), plain_facts(), kvm=HARDWARE, machine=machine(kvm=HARDWARE))
        assert "dev/kvm" in {op.path for op in of_kind(plain.template, Bind)}
        assert "/dev/kvm" in {rule.path for rule in plan.landlock.rules}  # type: ignore[union-attr]
        for kvm in (SLOW, None, KvmFacts("absent", None, Missing(need="a", have="an emulator"))):
            with pytest.raises(RuntimeUnavailable, match="L4"):
                compiled(spec_of(level="L4"), kvm=kvm)

    def test_l3_does_without(self) -> None:
        plan = compiled(spec_of())
        assert argument(plan, "-accel") == "tcg"
        assert plan.expects["hardware"] is False
        assert "/dev/kvm" not in {op.source for op in of_kind(plan.template, Bind)}
        (clause,) = [one for one in plan.report if one.clause == "runtime"]
        assert "an emulator" in clause.by

    def test_what_is_missing_is_told(self) -> None:
        missing = Missing(need="QEMU", have="none", command="get it")
        with pytest.raises(RuntimeUnavailable, match="QEMU") as caught:
            compiled(spec_of(), machine=missing)
        assert caught.value.hint == "get it"

    def test_a_qemu_that_no_box_shows(self) -> None:
        with pytest.raises(RuntimeUnavailable, match="/opt/qemu"):
            compiled(spec_of(), machine=machine(vmm=ProgramFacts("/opt/qemu", "9", (1,))))


class TestOuter:
    def test_it_is_a_box_of_l2(self) -> None:
        plan = compiled(spec_of())
        assert plan.landlock is not None
        assert plan.command.filters
        assert plan.command.keep_capabilities == 0
        assert plan.spare_network
        assert plan.expects["around"]["landlock_abi"] == 7  # type: ignore[index]

    def test_it_shows_what_is_booted_and_cannot_be_written(self) -> None:
        plan = compiled(spec_of())
        binds = {op.path: op for op in of_kind(plan.template, Bind) if op.path.startswith(PLACE[1:])}
        assert {f"/{path}": op.source for path, op in binds.items()} == {
            KERNEL: "/boot/guest",
            f"{PLACE}/initramfs": "/cache/first.cpio",
            IMAGE: "/cache/image.erofs",
        }
        assert {op.attributes for op in binds.values()} == {15}
        assert [op.data for op in of_kind(plan.template, File) if op.path == "machine/outside"] == [
            b"no workload sees this file\n"
        ]
        assert "/images/one" not in str(plan.template)

    @pytest.mark.parametrize("facts", [make_facts(cgroups=V1), plain_facts(), plain_facts(ids=SINGLE)], ids=str)
    def test_memory_is_the_machine_s(self, facts: HostFacts) -> None:
        plan = compiled(spec_of(limits={"memory_mib": 256}), facts)
        assert argument(plan, "-m") == "256M"
        limits = {limit.file: int(limit.value) >> 20 for limit in plan.cgroup if limit.file.startswith("memory")}
        bounded = {"memory.limit_in_bytes": 256 + 160, "memory.memsw.limit_in_bytes": 256 + 160}
        assert limits == (bounded if facts.cgroups else {})
        (clause,) = [one for one in plan.report if one.clause == "limits.memory_mib"]
        assert clause.got == "exact"

    def test_processors(self) -> None:
        plan = compiled(spec_of(limits={"cpus": 2.5}), make_facts(cgroups=V1))
        assert argument(plan, "-smp") == "3"
        assert argument(compiled(spec_of()), "-smp") == "1,maxcpus=2"
        assert "cpu" in {limit.file.partition(".")[0] for limit in plan.cgroup}
        with pytest.raises(ProtectionUnavailable, match="cpus"):
            compiled(spec_of(limits={"cpus": 2.5}), plain_facts())
        best = spec_of(limits={"cpus": 2.5}, protections={"cpus": "best_effort"})
        (clause,) = [one for one in compiled(best, plain_facts()).report if one.clause == "limits.cpus"]
        assert clause.got == "unenforceable"


class TestWithin:
    def test_our_init_gets_the_last_stage_and_no_mounts_of_its_kernel(self) -> None:
        told = guest(compiled(spec_of()))
        assert told["drop_groups"]
        assert told["command"]["filters"]
        assert {op["op"] for op in told["root"]} == {"private", "hostname"}
        assert "moment" not in told, "that is each box's own"
        assert not compiled(spec_of()).terminals

    @pytest.mark.parametrize(("arg", "inherited"), [(0x540E, 0), (0x5412, 1)], ids=["TIOCSCTTY", "TIOCSTI"])
    def test_commands_inherit_a_filter_that_gives_them_terminals(self, arg: int, inherited: int) -> None:
        """It comes before the terminal then."""
        refused = {
            "names": ["ioctl"],
            "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 1, "value": arg, "op": "SCMP_CMP_EQ"}],
        }
        profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [refused]}
        parsed = parse_profile(msgspec.json.encode(profile), source="ours")
        filters = compile_filters(parsed, arch="x86_64", kernel=(6, 12), keep=0)
        assert (filters.inherited, filters.inherited_within) == (1, inherited)
        told = guest(compiled(spec_of(level="L0"), filters=filters))
        assert told["command"]["inherited_filters"] == inherited

    def test_a_tmpfs(self) -> None:
        told = guest(compiled(spec_of(files={"mounts": [{"tmpfs": "/tmp/own", "size_mib": 2}]})))
        assert [op["path"] for op in told["root"] if op["op"] == "mount"] == ["/tmp/own"]

    def test_landlock_is_for_a_kernel_that_nobody_has_asked(self) -> None:
        plan = compiled(spec_of(files={"mounts": [{"tmpfs": "/work"}]}))
        domain = guest(plan)["landlock"]
        assert [one["abi"] for one in domain["abis"]] == list(range(3, 11))
        assert domain["abis"][0] == {"abi": 3, "handled_fs": (1 << 15) - 1, "scoped": 0}
        assert domain["abis"][-1] == {"abi": 10, "handled_fs": domain["handled_fs"], "scoped": domain["scoped"]}
        rules = {rule["path"]: rule["access"] for rule in domain["rules"]}
        assert set(rules) == {"/", "/bin", "/etc", "/proc", "/dev", "/tmp", "/dev/shm", "/work", "/.immure/sentinel"}
        assert domain["sentinel"] not in rules
        assert (domain["optional"], plan.expects["landlock"]) == (True, "best_effort")

    def test_landlock_that_is_required_and_that_is_off(self) -> None:
        plan = compiled(spec_of(protections={"landlock": "required"}))
        assert not guest(plan)["landlock"].get("optional")
        assert plan.expects["landlock"] == "required"
        (clause,) = [one for one in plan.report if one.clause == "files.landlock"]
        assert clause.got == "exact"
        off = compiled(spec_of(level="L1", files={"landlock": "off"}))
        assert (guest(off)["landlock"], off.expects["landlock"]) == (None, None)

    def test_a_place_for_a_mount_is_made_in_its_root(self) -> None:
        told = guest(compiled(spec_of(files={"mounts": [{"tmpfs": "/work/deep"}]})))
        assert [(op["op"], op["path"]) for op in told["image"]] == [("dir", "work"), ("dir", "work/deep")]

    def test_mounts_are_a_second_disk(self) -> None:
        mounts = [
            {"source": source, "target": target} for source, target in (("/a", "/b"), ("/c", "/tmp/d"), ("/a", "/e"))
        ]
        files = (*machine().files, ("/cache/one.mounts", (5,)))
        plan = compiled(spec_of(files={"mounts": mounts}), machine=machine(files=files))
        told = guest(plan)
        assert {op["path"]: op["source"] for op in told["root"] if op["op"] == "show"} == {
            "/b": "/.immure/mounts/0",
            "/tmp/d": "/.immure/mounts/1",
            "/e": "/.immure/mounts/2",
        }
        assert {op["attributes"] for op in told["root"] if op["op"] == "show"} == {7}
        assert "IMMURE_MOUNTS=/dev/vdb" in argument(plan, "-append")
        assert [op.source for op in of_kind(plan.template, Bind) if op.path == "machine/mounts"] == [
            "/cache/one.mounts"
        ]
        assert plan.root == compiled(spec_of()).root, "nothing of them is in the box around it"
        assert "IMMURE_MOUNTS" not in argument(compiled(spec_of()), "-append")

    def test_what_is_written_to_mounts_is_brought_back(self) -> None:
        rights = enumerate(("ro", "rw", "rw"))
        mounts = [{"source": "/a", "target": f"/{number}", "access": access} for number, access in rights]
        plan = compiled(spec_of(files={"mounts": mounts}, limits={"disk_mib": 9}))
        told = guest(plan)
        shown = {op["path"]: (op["source"], op.get("changes")) for op in told["root"] if op["op"] == "show"}
        assert shown == {
            "/0": ("/.immure/mounts/0", None),
            "/1": ("/.immure/mounts/1", "/.immure/changes/1"),
            "/2": ("/.immure/mounts/2", "/.immure/changes/2"),
        }
        assert plan.disk is not None
        most_mib = plan.disk[0] >> 20
        assert 9 <= most_mib <= 11
        assert plan.changes == (("/a", 1, "/1", most_mib), ("/a", 2, "/2", most_mib))
        plain = compiled(spec_of(files={"mounts": mounts}))
        assert {most for *_, most in plain.changes} == {1024}
        assert {op["path"] for op in told["image"]} >= {".immure/changes/1/lower", ".immure/changes/2/upper"}
        rules = {rule["path"]: rule["access"] for rule in told["landlock"]["rules"]}
        assert rules["/.immure/changes/1"] == 0b1100
        assert {one.got for one in plan.report if one.clause.startswith("files.mounts")} == {"approximated"}

    def test_what_is_a_box_s_own_is_not_packed(self) -> None:
        told = guest(compiled(spec_of(image="host", processes={"user": 7}), image=None))
        files = {op["path"]: op["data"] for op in told["image"]}
        assert set(files) == {
            f"etc/{name}" for name in ("passwd", "group", "hosts", "nsswitch.conf", "host.conf", "resolv.conf")
        }
        assert b":7:7:" in files["etc/passwd"]

    @pytest.mark.parametrize(
        ("fields", "changes", "match"),
        [
            ({"level": "L1", "network": {"mode": "host"}}, {}, "no network"),
            ({"level": "L1", "processes": {"namespaces": "none"}}, {}, "namespaces"),
            ({"limits": {"memory_mib": 63}}, {}, "64 at least"),
            ({}, {"learning": True}, "learned"),
            (
                {"files": {"mounts": [{"source": "/a", "target": "/b", "access": "rw"}]}},
                {"sources": (SourceFacts(path="/a", kind="file"),)},
                "can't write",
            ),
        ],
        ids=str,
    )
    def test_what_it_can_not_have(self, fields: dict[str, Any], changes: dict[str, Any], match: str) -> None:
        with pytest.raises(SpecError, match=match):
            compiled(spec_of(**fields), **changes)


def test_the_launch_names_what_it_depends_on() -> None:
    spec = spec_of()
    inputs = inputs_of(spec)
    launch = make_launch(compile_plan(spec, make_facts(), inputs), spec, make_facts(), inputs)
    assert launch.programs == (
        ("/usr/bin/qemu-system-x86_64", (1,)),
        ("/boot/guest", (2,)),
        ("/cache/first.cpio", (3,)),
        ("/cache/image.erofs", (4,)),
    )
    assert (launch.runtime, launch.mac) == ("qemu", "qemu/7.2.22")


class TestDisk:
    """The private space is on one where `disk_mib` is written."""

    MOUNTS: ClassVar = [{"source": "/a", "target": "/b"}]

    def told(self, disk_mib: int | None, **fields: Any) -> dict[str, list[dict[str, Any]]]:
        plan = compiled(spec_of(limits={"disk_mib": disk_mib, "memory_mib": 256}, **fields))
        ops: dict[str, list[dict[str, Any]]] = {}
        for op in guest(plan)["root"]:
            ops.setdefault(op["op"], []).append(op)
        return ops

    def clause(self, disk_mib: int | None) -> str:
        plan = compiled(spec_of(limits={"disk_mib": disk_mib, "memory_mib": 256}))
        (clause,) = [one for one in plan.report if one.clause == "limits.disk_mib"]
        assert clause.got == "exact"
        return clause.by

    def test_where_none_is_written_all_is_in_memory(self) -> None:
        plan = compiled(spec_of())
        assert plan.disk is None
        assert "-add-fd" not in plan.carrier
        assert not [word for word in plan.carrier if "fdset" in word]
        assert "disk" not in self.told(None)
        (private,) = self.told(None)["private"]
        assert [one["path"] for one in private["folders"]] == ["/tmp", "/dev/shm"]
        assert not [limit for limit in plan.command.rlimits if limit[0] == RLIMIT_FSIZE]
        assert self.clause(None) == "tmpfs size, within the machine's memory"

    def test_where_it_is_written_there_is_a_disk(self) -> None:
        plan = compiled(spec_of(limits={"disk_mib": 600}))
        assert plan.disk is not None
        size, *made_by = plan.disk
        assert made_by == ["/cache/disks", "/sbin/mke2fs"]
        assert size > 600 << 20
        assert argument(plan, "-add-fd") == "fd=4,set=1"
        (drive,) = [word for word in plan.carrier if "fdset" in word]
        assert f"size={size}," in drive
        assert "discard=unmap" in drive
        (device,) = [word for word in plan.carrier if "drive=own" in word]
        assert "werror=report" in device, "the machine does not stand still"
        ops = self.told(600)
        assert "private" not in ops
        (disk,) = ops["disk"]
        assert (disk["device"], disk["kind"], disk["flags"]) == ("vdb", "ext4", NOSUID | NODEV)
        assert [one["path"] for one in disk["folders"]] == ["/tmp"]

    def test_shared_memory_stays_in_memory(self) -> None:
        sizes = {}
        for disk_mib in (600, 100):
            (shared,) = self.told(disk_mib)["mount"]
            assert (shared["kind"], shared["path"], shared["flags"]) == ("tmpfs", "/dev/shm", NOSUID | NODEV)
            sizes[disk_mib] = shared["options"].split(",")[0]
            assert sizes[disk_mib].removeprefix("size=").removesuffix("m") in self.clause(disk_mib)
        assert sizes == {600: "size=128m", 100: "size=100m"}

    def test_it_comes_after_the_disk_of_the_mounts(self) -> None:
        files = (*machine().files, ("/cache/one.mounts", (5,)))
        plan = compiled(spec_of(limits={"disk_mib": 9}, files={"mounts": self.MOUNTS}), machine=machine(files=files))
        (disk,) = [op for op in guest(plan)["root"] if op["op"] == "disk"]
        assert disk["device"] == "vdc"
        drives = [word for word in plan.carrier if word.startswith("virtio-blk-device")]
        assert [word.split(",")[1] for word in drives] == ["drive=image", "drive=mounts", "drive=own"]

    def test_a_tmpfs_is_on_it_unless_it_has_a_size(self) -> None:
        mounts = {"mounts": [{"tmpfs": "/a"}, {"tmpfs": "/b", "size_mib": 50}]}
        ops = self.told(600, files=mounts)
        assert [op["path"] for op in ops["share"]] == ["/a"]
        assert [op["path"] for op in ops["mount"]] == ["/dev/shm", "/b"]
        plan = compiled(spec_of(limits={"disk_mib": 600}, files=mounts))
        assert plan.disk is not None
        smaller = compiled(spec_of(limits={"disk_mib": 550}))
        assert plan.disk == smaller.disk
        by = {one.clause: one.by for one in plan.report}
        assert by["files.mounts[0]"] == "a disk of the machine's own"
        assert by["files.mounts[1]"] == "the machine's own memory"
        with pytest.raises(SpecError, match="leave no private space"):
            compiled(spec_of(limits={"disk_mib": 50}, files=mounts))

    def test_whoever_has_taken_the_vmm_over_makes_no_larger_file(self) -> None:
        for disk_mib, most in ((9, (512 + 160) << 20), (6000, None)):
            plan = compiled(spec_of(limits={"disk_mib": disk_mib}))
            assert plan.disk is not None
            (limit,) = [limit for limit in plan.command.rlimits if limit[0] == RLIMIT_FSIZE]
            assert limit == (RLIMIT_FSIZE, most or plan.disk[0], most or plan.disk[0])

    def test_the_launch_says_how_it_is_made(self) -> None:
        for disk_mib in (None, 600):
            spec = spec_of(limits={"disk_mib": disk_mib})
            inputs = inputs_of(spec)
            plan = compile_plan(spec, make_facts(), inputs)
            launch = make_launch(plan, spec, make_facts(), inputs)
            assert launch.disk == plan.disk
