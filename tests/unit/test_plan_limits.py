"""Limits: what is written is required, what is the default is best effort, and both are reported."""

from __future__ import annotations

import pytest
from hosts import NO_CGROUPS, SINGLE, V1, V2, clauses, compiled, make_facts, make_spec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from immure.errors import ProtectionUnavailable
from immure.host.facts import CgroupParent
from immure.plan.limits import RLIMIT_CORE, RLIMIT_NPROC, LimitPlan, plan_limits

HOSTS = {"none": NO_CGROUPS, "v1": V1, "v2": V2}


def plan_of(
    limits: dict[str, object], host: str = "none", protections: dict[str, str] | None = None, **facts: object
) -> LimitPlan:
    spec = make_spec(limits=limits, protections=protections or {})
    return plan_limits(spec, make_facts(cgroups=HOSTS[host], **facts))


def files(plan: LimitPlan) -> dict[str, str]:
    return {one.file: one.value for one in plan.cgroup}


def got(plan: LimitPlan) -> dict[str, str]:
    return {one.clause.removeprefix("limits."): one.got for one in plan.clauses}


WRITTEN = {"memory_mib": 64, "cpus": 1.5, "pids": 9}


@pytest.mark.parametrize(
    ("limits", "host", "expected"),
    [
        # v2 joins at the clone and costs nothing, so defaults are set too.
        ({}, "v2", {"memory.max": str(1024 << 20), "memory.swap.max": "0", "pids.max": "513"}),
        (
            WRITTEN,
            "v2",
            {"memory.max": str(64 << 20), "memory.swap.max": "0", "cpu.max": "150000 100000", "pids.max": "10"},
        ),
        # On v1 each join costs milliseconds: what is written alone makes a cgroup.
        ({}, "v1", {}),
        (
            WRITTEN,
            "v1",
            {
                "memory.limit_in_bytes": str(64 << 20),
                "memory.memsw.limit_in_bytes": str(64 << 20),
                "cpu.cfs_period_us": "100000",
                "cpu.cfs_quota_us": "150000",
                "pids.max": "10",
            },
        ),
        (
            {"memory_mib": 4},
            "v1",
            {"memory.limit_in_bytes": str(4 << 20), "memory.memsw.limit_in_bytes": str(4 << 20)},
        ),
        ({"pids": 1}, "v1", {"pids.max": "2"}),
        ({}, "none", {}),
        # A quota below what the kernel takes is its least.
        (
            {"cpus": 0.01},
            "v2",
            {"memory.max": str(1024 << 20), "memory.swap.max": "0", "cpu.max": "1000 100000", "pids.max": "513"},
        ),
    ],
)
def test_what_is_written_into_cgroups(limits: dict[str, object], host: str, expected: dict[str, str]) -> None:
    assert files(plan_of(limits, host)) == expected


@pytest.mark.parametrize(
    ("host", "limits", "expected"),
    [
        ("none", {}, {"memory_mib": "unenforceable", "cpus": "exact", "pids": "approximated"}),
        ("v1", {}, {"memory_mib": "unenforceable", "cpus": "exact", "pids": "approximated"}),
        ("v2", {}, {"memory_mib": "exact", "cpus": "exact", "pids": "exact"}),
        ("v1", WRITTEN, {"memory_mib": "exact", "cpus": "exact", "pids": "exact"}),
        ("v2", WRITTEN, {"memory_mib": "exact", "cpus": "exact", "pids": "exact"}),
    ],
)
def test_what_is_reported(host: str, limits: dict[str, object], expected: dict[str, str]) -> None:
    plan = plan_of(limits, host)
    assert got(plan) == {**expected, "disk_mib": "exact", "timeout_s": "exact", "output_mib": "exact"}
    for clause in plan.clauses:
        assert (clause.why != "") == (clause.got != "exact"), clause


@pytest.mark.parametrize(
    ("limit", "protection", "controller"), [("memory_mib", "memory", "memory"), ("cpus", "cpus", "cpu")]
)
def test_a_written_limit_is_required(limit: str, protection: str, controller: str) -> None:
    for protections in ({}, {protection: "required"}):
        with pytest.raises(ProtectionUnavailable) as caught:
            plan_of({limit: 64}, "none", protections)
        error = caught.value
        assert error.protection == f"limits.{limit}"
        assert f"the {controller} controller" in (error.need or "")
        assert f"--best-effort {protection}" in (error.hint or "")


@pytest.mark.parametrize(("limit", "protection"), [("memory_mib", "memory"), ("cpus", "cpus")])
def test_a_written_limit_can_be_opted_down(limit: str, protection: str) -> None:
    plan = plan_of({limit: 64}, "none", {protection: "best_effort"})
    assert got(plan)[limit] == "unenforceable"
    assert "best effort was asked for" in next(one.why for one in plan.clauses if one.clause == f"limits.{limit}")
    assert plan.cgroup == ()


def test_another_ones_best_effort_does_not_help() -> None:
    with pytest.raises(ProtectionUnavailable):
        plan_of({"memory_mib": 64}, "none", {"cpus": "best_effort", "pids": "best_effort"})


def test_best_effort_takes_nothing_from_a_host_that_can() -> None:
    plan = plan_of(WRITTEN, "v2", dict.fromkeys(("memory", "cpus", "pids"), "best_effort"))
    assert plan.cgroup == plan_of(WRITTEN, "v2").cgroup
    assert set(got(plan).values()) == {"exact"}


def test_a_bare_box_has_a_process_more() -> None:
    plan = plan_limits(make_spec(limits={"pids": 9}), make_facts(cgroups=V2), bare=True)
    assert files(plan)["pids.max"] == "11"


def test_a_hybrid_host_is_taken_controller_by_controller() -> None:
    hybrid = (V1[0], CgroupParent(controllers=("pids",), path="/sys/fs/cgroup/unified/ours", version=2))
    spec = make_spec(limits={"memory_mib": 64})
    plan = plan_limits(spec, make_facts(cgroups=hybrid))
    memory = {name: str(64 << 20) for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")}
    assert files(plan) == {**memory, "pids.max": "513"}
    with pytest.raises(ProtectionUnavailable):
        plan_limits(make_spec(limits={"cpus": 1}), make_facts(cgroups=hybrid))


def unified(path: str, *controllers: str, **facts: object) -> CgroupParent:
    return CgroupParent(controllers=controllers, path=f"/sys/fs/cgroup{path}", version=2, **facts)  # type: ignore[arg-type]


#: As root in a service: systemd passes on to a slice what something in it needs.
NESTED = (unified("/system.slice", "memory", "pids"), unified("", "memory", "pids", "cpu"))


@pytest.mark.parametrize(
    ("limits", "place"),
    [
        ({}, "/sys/fs/cgroup/system.slice"),
        ({"memory_mib": 64, "pids": 9}, "/sys/fs/cgroup/system.slice"),
        ({"cpus": 1}, "/sys/fs/cgroup"),
        (WRITTEN, "/sys/fs/cgroup"),
    ],
)
def test_on_v2_a_box_is_in_the_nearest_that_has_what_is_written(limits: dict[str, object], place: str) -> None:
    """And in one alone, whatever its limits."""
    plan = plan_limits(make_spec(limits=limits), make_facts(cgroups=NESTED))
    assert {one.parent for one in plan.cgroup} == {place}
    assert set(got(plan).values()) == {"exact"}


def test_what_no_cgroup_passes_on_is_refused_and_the_rest_is_where_it_was() -> None:
    facts = make_facts(cgroups=NESTED[:1])
    with pytest.raises(ProtectionUnavailable, match=r"limits\.cpus"):
        plan_limits(make_spec(limits=WRITTEN), facts)
    plan = plan_limits(make_spec(limits=WRITTEN, protections={"cpus": "best_effort"}), facts)
    assert set(files(plan)) == {"memory.max", "memory.swap.max", "pids.max"}


def test_a_refusal_says_why_there_is_none() -> None:
    why = "/sys/fs/cgroup is mounted read-only"
    with pytest.raises(ProtectionUnavailable) as caught:
        plan_limits(make_spec(limits={"memory_mib": 64}), make_facts(cgroups=(), no_cgroups=why))
    assert caught.value.have == f"no writable cgroup of this controller: {why}"
    assert "systemd-run --user --scope -p Delegate=yes" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("swap", "expected"),
    [
        ("limited", ({"memory.max", "memory.swap.max"}, "exact")),
        ("none", ({"memory.max"}, "exact")),
        ("uncounted", ({"memory.max"}, "approximated")),
    ],
)
def test_swap_that_a_kernel_does_not_count(swap: str, expected: tuple[set[str], str]) -> None:
    """A file that it does not have can't be written, and would refuse every box."""
    plan = plan_limits(make_spec(limits={}), make_facts(cgroups=(unified("", "memory", swap=swap),)))
    assert (set(files(plan)), got(plan)["memory_mib"]) == expected


@pytest.mark.parametrize(
    ("swap", "expected"),
    [
        ("limited", ({"memory.limit_in_bytes", "memory.memsw.limit_in_bytes"}, "exact")),
        ("none", ({"memory.limit_in_bytes"}, "exact")),
        ("uncounted", ({"memory.limit_in_bytes"}, "approximated")),
    ],
)
def test_swap_that_a_kernel_of_v1_does_not_count(swap: str, expected: tuple[set[str], str]) -> None:
    parent = structs.replace(V1[0], swap=swap)
    plan = plan_limits(make_spec(limits={"memory_mib": 64}), make_facts(cgroups=(parent,)))
    assert (set(files(plan)), got(plan)["memory_mib"]) == expected


@pytest.mark.parametrize(
    ("limits", "facts", "count"),
    [
        ({}, {}, 512),
        ({"pids": 9}, {}, 9),
        # With one id init counts too.
        ({}, {"ids": SINGLE}, 513),
        ({"pids": 9}, {"ids": SINGLE}, 10),
        # A hard limit can't be raised.
        ({}, {"nproc_hard": 100}, 100),
        ({"pids": 9}, {"nproc_hard": 100}, 9),
    ],
)
def test_processes_are_counted_by_rlimit_everywhere(
    limits: dict[str, object], facts: dict[str, object], count: int
) -> None:
    for host in HOSTS:
        plan = plan_of(limits, host, **facts)
        assert {number: (soft, hard) for number, soft, hard in plan.rlimits} == {
            RLIMIT_CORE: (0, 0),
            RLIMIT_NPROC: (count, count),
        }


def test_a_clause_says_what_was_wanted() -> None:
    plan = plan_of({"memory_mib": 64, "timeout_s": 2.5, "output_mib": 3}, "v2")
    by_name = {one.clause: one.wanted for one in plan.clauses}
    assert by_name["limits.memory_mib"] == "64"
    assert by_name["limits.timeout_s"] == "2.5"
    assert by_name["limits.output_mib"] == "3.0"
    defaults = {one.clause: one.wanted for one in plan_of({}, "v2").clauses}
    assert all("default" in wanted for wanted in defaults.values()), defaults


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "memory_mib": st.integers(4, 16_777_216),
            "cpus": st.floats(0.01, 4096),
            "pids": st.integers(1, 4_194_304),
        },
    ),
    st.sampled_from(sorted(HOSTS)),
)
def test_a_written_limit_is_exact_or_an_error(limits: dict[str, object], host: str) -> None:
    try:
        plan = plan_of(limits, host)
    except ProtectionUnavailable:
        assert host == "none"
    else:
        for name in limits:
            assert got(plan)[name] == "exact" or (name, host) == ("pids", "none")
        for value in files(plan).values():
            assert all(0 <= int(word) < 2**63 for word in value.split())


def test_limits_are_in_the_plan() -> None:
    plan = compiled(make_spec(limits=WRITTEN), make_facts(cgroups=V2))
    assert {one.file for one in plan.cgroup} == {"memory.max", "memory.swap.max", "cpu.max", "pids.max"}
    assert clauses(plan)["limits.cpus"] == ("exact", "cgroup v2 CPU quota")
    assert plan.command.rlimits[1] == (RLIMIT_NPROC, 9, 9)
