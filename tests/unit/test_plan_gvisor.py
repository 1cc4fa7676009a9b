"""Plans of boxes in a Sentry: an outer box, a bundle in it, and our init within. Nothing here runs runsc."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hosts import SINGLE, V1, V2, clauses, make_facts, make_inputs, make_spec, mounts, of_kind, plain_facts
from hypothesis import given
from hypothesis import strategies as st

from immure.errors import ProtectionUnavailable, RuntimeUnavailable, SpecError
from immure.host.facts import HostFacts, KvmFacts, Missing, ProgramFacts
from immure.plan.bundle import private_sizes
from immure.plan.compile import compile_plan, runtime_of
from immure.plan.filters import BoxFilters, compile_filters
from immure.plan.launching import make_launch
from immure.plan.model import NAMESPACES, Plan
from immure.plan.operations import Bind, File, Hide, Private, UserMount
from immure.plan.restoring import restoring_launch
from immure.policy.seccomp import parse_profile
from immure.spec.models import SandboxSpec

RUNSC = ProgramFacts(path="/opt/runsc", version="go-20260905", identity=(1, 2, 3, 4))


def compiled(
    spec: SandboxSpec,
    facts: HostFacts | None = None,
    *,
    runsc: Any = RUNSC,
    kvm: KvmFacts | None = None,
    files: tuple[str, ...] = (),
    filters: BoxFilters | None = None,
) -> Plan:
    inputs = make_inputs(spec, files=files)
    inputs = msgspec.structs.replace(inputs, runsc=runsc, kvm=kvm, init="/opt/immure-init", filters=filters)
    return compile_plan(spec, facts or make_facts(), inputs)


def bundle(plan: Plan) -> dict[str, Any]:
    (found,) = [op for op in of_kind(plan.template, File) if op.path == "bundle/config.json"]
    return msgspec.json.decode(found.data)


def guest(plan: Plan) -> dict[str, Any]:
    return msgspec.msgpack.decode(plan.guest)


def spec_of(**fields: Any) -> SandboxSpec:
    return make_spec(**{"level": "L3", **fields})


def test_the_cheapest_runtime_that_reaches_the_level() -> None:
    assert [runtime_of(make_spec(level=level)) for level in ("L1", "L2", "L3")] == ["process", "process", "gvisor"]
    assert runtime_of(make_spec(level="L1", runtime="gvisor")) == "gvisor"


class TestOuterBox:
    def test_it_has_every_namespace_and_no_wall_that_runsc_would_run_into(self) -> None:
        plan = compiled(spec_of())
        assert plan.namespaces == sum(NAMESPACES.values()) - NAMESPACES["net"]
        assert plan.spare_network
        assert (plan.landlock, plan.command.filters, plan.command.rlimits) == (None, (), ())
        # A Sentry mounts a /proc of its own, which takes a whole one.
        assert of_kind(plan.root, Hide) == []

    def test_of_the_host_it_shows_what_the_image_shows_and_two_programs(self) -> None:
        sources = {op.source for op in of_kind(compiled(spec_of()).template, Bind)}
        image = {
            op.source
            for op in of_kind(compile_plan(make_spec(), make_facts(), make_inputs(make_spec())).template, Bind)
        }
        assert sources == image | {"/opt/runsc", "/opt/immure-init"}

    def test_with_one_id_that_is_runsc_s(self) -> None:
        assert (compiled(spec_of(), plain_facts()).user, compiled(spec_of()).user) == (0, 1000)

    def test_limits_are_of_the_whole(self) -> None:
        plan = compiled(spec_of(limits={"memory_mib": 256, "cpus": 1.5}), make_facts(cgroups=V1))
        assert {one.file.partition(".")[0] for one in plan.cgroup} == {"memory", "cpu"}
        assert clauses(plan)["limits.memory_mib"][0] == "exact"
        assert {one.file.partition(".")[0] for one in compiled(spec_of(), make_facts(cgroups=V2)).cgroup} >= {"memory"}


class TestBundle:
    def test_the_root_is_read_only_and_init_is_all_that_is_started(self) -> None:
        config = bundle(compiled(spec_of()))
        assert config["root"] == {"path": "/rootfs", "readonly": True}
        assert config["process"]["args"] == ["/.immure/init", "guest", "0", "1"]
        assert config["process"]["noNewPrivileges"] is True
        # What would change what a Sentry allows.
        assert "annotations" not in config

    def test_mounts_are_where_and_what_they_are(self) -> None:
        files = mounts(
            {"source": "/a", "target": "/work", "access": "rw"},
            {"source": "/b", "target": "/tmp/in"},
            {"source": "/f", "target": "/tmp/deep/file"},
            {"tmpfs": "/scratch", "size_mib": 8},
        )
        plan = compiled(spec_of(files=files), files=("/f",))
        config = {one["destination"]: one for one in bundle(plan)["mounts"]}
        places = {op.source: op.path for op in of_kind(plan.root, UserMount)}
        assert all(op.root_too for op in of_kind(plan.root, UserMount))
        for source, target, access in (("/a", "/work", "rw"), ("/b", "/tmp/in", "ro"), ("/f", "/tmp/deep/file", "ro")):
            assert config[target]["source"] == places[source]
            assert access in config[target]["options"]
        assert "size=8m" in config["/scratch"]["options"]
        # In the Sentry's own space too, the gofer needs places in the root below it.
        paths = {op.path for op in plan.template}
        assert {"rootfs/work", "rootfs/tmp/in", "rootfs/tmp/deep", "rootfs/tmp/deep/file", "mounts/0"} <= paths

    @given(
        disk=st.integers(8, 4096),
        sized=st.lists(st.integers(1, 64), max_size=3),
        shared=st.integers(0, 4),
    )
    def test_private_space_is_never_more_than_was_asked_for(self, disk: int, sized: list[int], shared: int) -> None:
        if sum(sized) + 2 + shared >= disk:
            return
        entries = [{"tmpfs": f"/s{number}", "size_mib": size} for number, size in enumerate(sized)]
        entries += [{"tmpfs": f"/t{number}"} for number in range(shared)]
        spec = spec_of(limits={"disk_mib": disk}, files={"mounts": entries})
        shm, share = private_sizes(spec)
        assert min(shm, share) >= 1
        assert shm + share * (1 + shared) + sum(sized) <= disk

    def test_its_own_space_is_for_runsc_alone(self) -> None:
        (private,) = of_kind(compiled(spec_of()).root, Private)
        assert [(one.path, one.mode) for one in private.folders] == [("/tmp", 0o700)]


class TestGuest:
    def test_commands_pass_the_same_last_stage(self) -> None:
        spec = spec_of(limits={"pids": 7})
        stage = guest(compiled(spec))["command"]
        same = msgspec.msgpack.decode(msgspec.msgpack.encode(compiled(make_spec(limits={"pids": 7})).command))
        assert stage["filters"] == same["filters"]
        assert stage["rlimits"] == same["rlimits"]
        # gVisor knows none.
        assert stage["securebits"] == 0

    @pytest.mark.parametrize(("refused", "ahead"), [("futex", False), ("setresuid", False), ("mkdir", True)])
    def test_the_next_one_bears_filters_that_leave_it_what_it_needs(self, refused: str, ahead: bool) -> None:
        rule = {"names": [refused], "action": "SCMP_ACT_ERRNO"}
        profile = msgspec.json.encode({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
        filters = compile_filters(parse_profile(profile, source="ours"), arch="x86_64", kernel=(6, 12), keep=0)
        stage = guest(compiled(spec_of(), filters=filters))["command"]
        assert (stage["ahead"], stage["inherited_filters"]) == (ahead, 0)

    def test_no_command_has_its_id(self) -> None:
        for user in (0, 1000, 65_533):
            found = guest(compiled(spec_of(processes={"user": user})))
            assert found["own_id"] not in (user, 0)
            assert (found["own_ids"], found["drop_groups"]) == (None, True)

    def test_with_one_id_it_makes_others(self) -> None:
        found = guest(compiled(spec_of(), plain_facts(ids=SINGLE)))
        assert (found["own_ids"], found["own_id"]) == ({"user": 1000, "group": 1000}, None)
        # Groups can't be dropped, and whoever maps the id 0 needs a capability for that.
        assert found["drop_groups"] is False
        config = bundle(compiled(spec_of(), plain_facts(ids=SINGLE)))
        assert "CAP_SETFCAP" in config["process"]["capabilities"]["bounding"]
        assert "CAP_SETFCAP" not in bundle(compiled(spec_of()))["process"]["capabilities"]["bounding"]


class TestLaunch:
    def test_another_program_is_another_launch(self) -> None:
        spec = spec_of()
        inputs = msgspec.structs.replace(make_inputs(spec), runsc=RUNSC, init="/i")
        launch = make_launch(compile_plan(spec, make_facts(), inputs), spec, make_facts(), inputs)
        assert launch.programs == (("/opt/runsc", (1, 2, 3, 4)),)
        assert (launch.runtime, launch.mac, launch.user) == ("gvisor", "gvisor/go-20260905", 1000)

    def test_one_that_restores_differs_in_what_is_started_and_in_one_mount(self) -> None:
        spec = spec_of()
        inputs = msgspec.structs.replace(make_inputs(spec), runsc=RUNSC, init="/i")
        launch = make_launch(compile_plan(spec, make_facts(), inputs), spec, make_facts(), inputs)
        other = restoring_launch(launch, "/snapshots/one/image")
        assert other.sources == (*launch.sources, ("/snapshots/one/image", "folder"))
        assert other.plan_sha256 != launch.plan_sha256
        assert (other.guest, other.expected, other.report) == (launch.guest, launch.expected, launch.report)
        assert "restore" in other.carrier
        before, after = (msgspec.msgpack.decode(one.wire) for one in (launch, other))
        assert after.pop("root")[:-1] == before.pop("root")
        assert after == before


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "error", "match"),
        [
            ({"limits": {"memory_mib": 63}}, SpecError, "does not fit"),
            ({"protections": {"landlock": "required"}}, ProtectionUnavailable, "landlock"),
            ({"gvisor": {"platform": "kvm"}}, RuntimeUnavailable, "hardware"),
            ({"network": {"mode": "host"}}, SpecError, "caps the level at L1, but L3"),
        ],
    )
    def test_what_it_can_not_be(self, fields: dict[str, Any], error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            compiled(spec_of(**fields), make_facts(cgroups=V1))

    def test_namespaces_are_needed(self) -> None:
        with pytest.raises(SpecError, match="namespaces of its own"):
            compiled(make_spec(level="L1", runtime="gvisor", processes={"namespaces": "none"}))

    def test_the_reason_for_there_being_no_runsc_is_told(self) -> None:
        missing = Missing(need="a static runsc", have="a dynamic one", command="build it otherwise")
        with pytest.raises(RuntimeUnavailable, match="a dynamic one") as caught:
            compiled(spec_of(), runsc=missing)
        assert caught.value.hint == "build it otherwise"
        with pytest.raises(RuntimeUnavailable):
            compiled(spec_of(), runsc=None)

    def test_hardware_makes_the_platform_kvm_possible(self) -> None:
        plan = compiled(spec_of(gvisor={"platform": "kvm"}), kvm=KvmFacts("hardware", 1))
        assert "--platform=kvm" in plan.carrier
        assert "/dev/kvm" in {op.source for op in of_kind(plan.template, Bind)}
        for kind in ("software", "emulating", "absent"):
            slow = KvmFacts(kind, 790, Missing(need="hardware", have="a slow one"))
            with pytest.raises(RuntimeUnavailable, match="a slow one"):
                compiled(spec_of(gvisor={"platform": "kvm"}), kvm=slow)
