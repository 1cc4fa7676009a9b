"""The clause report: each thing that the spec asks for, and what it comes to."""

from __future__ import annotations

import pytest
from hosts import (
    NO_CGROUPS,
    RANGES,
    REFUSED,
    SINGLE,
    V1,
    V2,
    clauses,
    compiled,
    make_facts,
    make_spec,
    mounts,
    plain_facts,
)

from immure.host.facts import HostFacts

ALWAYS = {
    "syscalls.profile",
    "files.landlock",
    "network.mode",
    "processes.namespaces",
    "processes.user",
    "limits.memory_mib",
    "limits.cpus",
    "limits.pids",
    "limits.disk_mib",
    "limits.timeout_s",
    "limits.output_mib",
}
SPECS = {
    "default": {},
    "full": {
        "files": mounts({"source": "/a", "target": "/a"}, {"tmpfs": "/t", "size_mib": 1}),
        "processes": {"user": 7, "capabilities": {"add": ["CHOWN"]}},
        "limits": {"disk_mib": 64, "timeout_s": 1},
    },
    "open": {"level": "L1", "network": {"mode": "host"}, "files": {"landlock": "off"}},
    "bare": {"level": "L1", "processes": {"namespaces": "none"}},
    "bare and open": {"level": "L1", "processes": {"namespaces": "none"}, "network": {"mode": "host"}},
    "opted down": {"level": "L1", "protections": {"namespaces": "best_effort", "landlock": "best_effort"}},
}
HOSTS = {
    "root": make_facts(),
    "root, v2": make_facts(cgroups=V2),
    "root, v1": make_facts(cgroups=V1),
    "plain": plain_facts(),
    "plain, groups": plain_facts(groups=(1001, 27, 100)),
    "plain, a range": plain_facts(ids=RANGES),
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("spec", SPECS)
def test_every_clause_is_there_once(spec: str, host: str) -> None:
    report = compiled(make_spec(**SPECS[spec]), HOSTS[host]).report
    names = [one.clause for one in report]
    assert set(names) >= ALWAYS
    assert len(names) == len(set(names))
    for clause in report:
        assert clause.got in ("exact", "stronger", "approximated", "unenforceable")
        assert clause.wanted
        assert clause.by
        assert clause.why or clause.got == "exact", clause


@pytest.mark.parametrize("host", ["root", "plain, a range"])
def test_all_is_exact_where_all_can_be(host: str) -> None:
    facts = HOSTS[host]
    fields = {**SPECS["full"], "limits": {"memory_mib": 64, "pids": 9, "cpus": 1}}
    plan = compiled(make_spec(**fields), make_facts(cgroups=V2, ids=facts.ids, root=facts.root, uid=facts.uid))
    assert {one.got for one in plan.report} == {"exact"}


def test_each_mount_has_a_clause() -> None:
    report = {one.clause: one for one in compiled(make_spec(**SPECS["full"])).report}
    assert report["files.mounts[0]"].wanted == "/a /a ro"
    assert report["files.mounts[1]"].wanted == "tmpfs /t"


@pytest.mark.parametrize(
    ("facts", "by"), [(make_facts(), "idmapped mount"), (plain_facts(), "bind mount")], ids=["root", "plain"]
)
def test_how_a_folder_is_mounted(facts: HostFacts, by: str) -> None:
    plan = compiled(make_spec(files=mounts({"source": "/a", "target": "/a"})), facts)
    assert clauses(plan)["files.mounts[0]"] == ("exact", by)


@pytest.mark.parametrize(
    ("facts", "reported"),
    [
        (make_facts(groups=(0, 27)), False),
        (plain_facts(groups=(1001,)), False),
        (plain_facts(groups=(1001, 27)), True),
        (plain_facts(groups=(1001, 27), ids=RANGES), False),
    ],
)
def test_groups_that_can_not_be_dropped_are_reported(facts: HostFacts, reported: bool) -> None:
    found = clauses(compiled(make_spec(), facts)).get("processes.groups")
    assert (found is not None) == reported
    assert found is None or found[0] == "approximated"


def test_a_profile_is_named() -> None:
    def wanted(profile: object) -> str:
        report = compiled(make_spec(syscalls={"profile": profile})).report
        return next(one.wanted for one in report if one.clause == "syscalls.profile")

    assert (wanted("default"), wanted("./a.json"), wanted({"a": 1})) == ("default", "./a.json", "inline")


def test_what_the_host_refused_is_the_reason() -> None:
    fields = {"level": "L1", "protections": {"namespaces": "best_effort"}}
    report = compiled(make_spec(**fields), make_facts(user_namespaces=REFUSED, cgroups=NO_CGROUPS)).report
    by_name = {one.clause: one for one in report}
    assert REFUSED.need in by_name["processes.namespaces"].why
    assert by_name["limits.disk_mib"].got == "unenforceable"
    assert by_name["network.mode"].got == "approximated"


def test_without_namespaces_and_landlock_the_network_is_open_and_said_to_be() -> None:
    fields = {"level": "L1", "processes": {"namespaces": "none"}, "files": {"landlock": "off"}}
    assert clauses(compiled(make_spec(**fields)))["network.mode"][0] == "unenforceable"
    with_tcp = {"level": "L1", "processes": {"namespaces": "none"}}
    assert clauses(compiled(make_spec(**with_tcp), make_facts(landlock_abi=3)))["network.mode"][0] == "unenforceable"
    assert clauses(compiled(make_spec(**with_tcp), make_facts(landlock_abi=4)))["network.mode"][0] == "approximated"


def test_one_id_is_said_to_be_the_callers() -> None:
    assert clauses(compiled(make_spec(), plain_facts(ids=SINGLE)))["processes.user"][1].startswith("the caller's id")
    assert clauses(compiled(make_spec()))["processes.user"][1].startswith("a range of 65536")
