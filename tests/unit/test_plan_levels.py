"""What caps a level, and what a host must have: refused by name, never done without."""

from __future__ import annotations

import msgspec
import pytest
from hosts import REFUSED, SINGLE, clauses, compiled, make_facts, make_inputs, make_spec, mounts, plain_facts

from immure.errors import ImmureError, ProtectionUnavailable, RuntimeUnavailable, SpecError
from immure.host.facts import Missing
from immure.plan.compile import compile_plan
from immure.plan.model import NAMESPACES

EVERY_NAMESPACE = sum(NAMESPACES.values())
NET = NAMESPACES["net"]


def test_no_runtime_reaches_more() -> None:
    with pytest.raises(RuntimeUnavailable, match="L4"):
        compiled(make_spec(level="L4"))


def test_a_runtime_that_does_not_reach_the_level() -> None:
    with pytest.raises(RuntimeUnavailable, match="process does not reach L3"):
        compiled(make_spec(level="L3", runtime="process"))


CAPS = [
    ({"network": {"mode": "host"}}, "$.spec.network.mode"),
    ({"files": {"landlock": "off"}}, "$.spec.files.landlock"),
    ({"processes": {"namespaces": "none"}}, "$.spec.processes.namespaces"),
]


@pytest.mark.parametrize(("fields", "path"), CAPS)
def test_what_caps_the_level_is_refused_where_more_is_asked(fields: dict[str, object], path: str) -> None:
    with pytest.raises(SpecError, match="caps the level at L1") as caught:
        compiled(make_spec(level="L2", **fields))
    assert caught.value.path == path


@pytest.mark.parametrize("level", ["L0", "L1"])
@pytest.mark.parametrize(("fields", "path"), CAPS)
def test_what_caps_the_level_is_fine_below(level: str, fields: dict[str, object], path: str) -> None:
    assert compiled(make_spec(level=level, **fields)).level == level


HOST_REFUSALS = [
    ({"user_namespaces": REFUSED}, "processes.namespaces"),
    ({"new_proc": REFUSED}, "processes.namespaces (a new /proc)"),
    ({"ptrace": REFUSED}, "evidence"),
    ({"seccomp": False}, "syscalls"),
]


@pytest.mark.parametrize("level", ["L1", "L2"])
@pytest.mark.parametrize(("facts", "protection"), HOST_REFUSALS)
def test_what_the_host_refuses_is_named(level: str, facts: dict[str, object], protection: str) -> None:
    with pytest.raises(ProtectionUnavailable) as caught:
        compiled(make_spec(level=level), make_facts(**facts))
    error = caught.value
    assert error.protection == protection
    assert error.need
    assert error.have
    assert error.hint


def test_the_command_that_helps_is_the_hosts() -> None:
    missing = Missing(need="a thing", have="none", command="sysctl -w a=1")
    with pytest.raises(ProtectionUnavailable) as caught:
        compiled(make_spec(), make_facts(user_namespaces=missing))
    assert (caught.value.need, caught.value.have) == ("a thing", "none")
    assert (caught.value.hint or "").startswith("sysctl -w a=1")


OWN_ID_IS_ROOT = {"root": False, "uid": 0, "ids": SINGLE, "host_root_id": 0}


def test_a_box_never_maps_the_hosts_root() -> None:
    """Root without CAP_SYS_ADMIN could map no id but its own."""
    with pytest.raises(ProtectionUnavailable) as caught:
        compiled(make_spec(), make_facts(**OWN_ID_IS_ROOT))
    assert caught.value.protection == "processes.user"
    in_a_container = make_facts(**{**OWN_ID_IS_ROOT, "host_root_id": None})
    assert not compiled(make_spec(), in_a_container).bare


BARE = {"level": "L1", "protections": {"namespaces": "best_effort"}}


@pytest.mark.parametrize("facts", [{"user_namespaces": REFUSED}, {"new_proc": REFUSED}, OWN_ID_IS_ROOT])
def test_l1_stays_possible_without_namespaces(facts: dict[str, object]) -> None:
    plan = compiled(make_spec(**BARE), make_facts(**facts))
    assert plan.bare
    assert (plan.namespaces, plan.spare_network, plan.template, plan.root) == (0, False, (), ())
    assert clauses(plan)["processes.namespaces"][0] == "unenforceable"


def test_l2_does_not() -> None:
    with pytest.raises(ProtectionUnavailable):
        compiled(make_spec(level="L2", protections=BARE["protections"]), make_facts(user_namespaces=REFUSED))


@pytest.mark.parametrize("facts", [{"ptrace": REFUSED}, {"seccomp": False}])
def test_filter_and_evidence_are_never_opted_down(facts: dict[str, object]) -> None:
    with pytest.raises(ProtectionUnavailable):
        compiled(make_spec(**BARE), make_facts(user_namespaces=REFUSED, **facts))


def test_best_effort_takes_nothing_from_a_host_that_can() -> None:
    plan = compiled(make_spec(**BARE))
    assert not plan.bare
    assert plan.wire() == compiled(make_spec(level="L1")).wire()


def test_asked_for_without_namespaces_it_has_none() -> None:
    plan = compiled(make_spec(level="L1", processes={"namespaces": "none"}))
    assert plan.bare
    assert plan.namespaces == 0
    assert clauses(plan)["processes.namespaces"][0] == "exact"


def test_without_namespaces_mounts_stay_where_they_are() -> None:
    spec = make_spec(**BARE, files=mounts({"source": "/srv/a", "target": "/srv/a", "access": "rw"}))
    plan = compiled(spec, make_facts(user_namespaces=REFUSED))
    assert "/srv/a" in {rule.path for rule in plan.landlock.rules}
    for entry in ({"source": "/srv/a", "target": "/b"}, {"tmpfs": "/srv/a"}):
        moved = make_spec(**BARE, files=mounts({"source": "/x", "target": "/x"}, entry))
        with pytest.raises(SpecError, match="can't be moved") as caught:
            compiled(moved, make_facts(user_namespaces=REFUSED))
        assert caught.value.path == "$.spec.files.mounts[1]"


def test_without_namespaces_a_plain_user_stays_itself() -> None:
    plan = compiled(make_spec(**BARE), plain_facts(user_namespaces=REFUSED))
    assert (plan.user, plan.group) == (1001, 1001)
    root = compiled(make_spec(**BARE), make_facts(user_namespaces=REFUSED))
    assert (root.user, root.group) == (1000, 1000)


def test_without_namespaces_capabilities_are_refused_or_reported() -> None:
    spec = make_spec(**BARE, processes={"capabilities": {"add": ["NET_RAW"]}})
    try:
        plan = compiled(spec, make_facts(user_namespaces=REFUSED))
    except ImmureError:
        return
    assert plan.command.keep_capabilities == 0
    assert clauses(plan)["processes.capabilities"][0] == "unenforceable"


def test_without_namespaces_each_mount_is_reported() -> None:
    spec = make_spec(**BARE, files=mounts({"source": "/a", "target": "/a"}, {"source": "/b", "target": "/b"}))
    plan = compiled(spec, make_facts(user_namespaces=REFUSED))
    assert {"files.mounts[0]", "files.mounts[1]"} <= set(clauses(plan))


@pytest.mark.parametrize(
    ("fields", "missing", "spare"),
    [
        # Made ahead by the spawner: one clone less to wait for.
        ({}, NET, True),
        # A box that keeps a capability must own its network namespace.
        ({"processes": {"capabilities": {"add": ["NET_RAW"]}}}, 0, False),
        ({"level": "L1", "network": {"mode": "host"}}, NET, False),
    ],
)
def test_every_namespace_is_the_boxes_own(fields: dict[str, object], missing: int, spare: bool) -> None:
    plan = compiled(make_spec(**fields))
    assert (plan.namespaces, plan.spare_network) == (EVERY_NAMESPACE & ~missing, spare)


def test_the_flags_are_the_kernels() -> None:
    assert {name: hex(flag) for name, flag in NAMESPACES.items()} == {
        "mount": "0x20000",
        "cgroup": "0x2000000",
        "uts": "0x4000000",
        "ipc": "0x8000000",
        "user": "0x10000000",
        "pid": "0x20000000",
        "net": "0x40000000",
    }


@pytest.mark.parametrize(
    ("default", "denies"),
    [
        ("SCMP_ACT_ERRNO", True),
        ("SCMP_ACT_KILL", True),
        ("SCMP_ACT_KILL_PROCESS", True),
        ("SCMP_ACT_ALLOW", False),
        ("SCMP_ACT_LOG", False),
    ],
)
def test_which_defaults_deny(default: str, denies: bool) -> None:
    spec, facts = make_spec(), make_facts()
    assert compile_plan(spec, facts, make_inputs(spec, default=default)).default_deny is denies


def test_profile_and_guard_are_one_program() -> None:
    spec, facts = make_spec(), make_facts()
    (program,) = compile_plan(spec, facts, make_inputs(spec)).command.filters
    assert program
    assert len(program) % 8 == 0


@pytest.mark.parametrize(("default", "inherited"), [("SCMP_ACT_ALLOW", 1), ("SCMP_ACT_ERRNO", 0)])
def test_the_stem_bears_a_filter_that_leaves_it_what_it_needs(default: str, inherited: int) -> None:
    spec, facts = make_spec(), make_facts()
    plan = compile_plan(spec, facts, make_inputs(spec, default=default))
    assert plan.command.inherited_filters == inherited


def test_capabilities_of_the_spec_reach_the_command() -> None:
    stage = compiled(make_spec(processes={"capabilities": {"add": ["NET_RAW"]}})).command
    assert (stage.keep_capabilities, stage.known_capabilities) == (1 << 13, (1 << 41) - 1)
    with pytest.raises(SpecError) as caught:
        compiled(make_spec(processes={"capabilities": {"add": ["NET_RAW", "NET_ROW"]}}))
    assert caught.value.path == "$.spec.processes.capabilities.add[1]"


def test_lo_is_brought_up_by_who_owns_the_network() -> None:
    """The spawner does it for a network made ahead; there a box's own try would be refused."""
    for fields in (
        {},
        {"processes": {"capabilities": {"add": ["NET_RAW"]}}},
        {"processes": {"capabilities": {"add": ["NET_RAW"], "drop": ["ALL", "NET_RAW"]}}},
        {"level": "L1", "network": {"mode": "host"}},
    ):
        plan = compiled(make_spec(**fields))
        brings_up = any(op["op"] == "loopback" for op in msgspec.msgpack.decode(plan.wire())["root"])
        assert brings_up == bool(plan.namespaces & NET), fields
