"""A launch: the plan in plain values, as the cache keeps it."""

from __future__ import annotations

import hashlib
import marshal
from typing import Any

import msgspec
import pytest
from hosts import RANGES, REFUSED, SINGLE, V2, compiled, launched, make_facts, make_spec, mounts, plain_facts

from immure.host.facts import HostFacts
from immure.plan.launch import FIELDS, Launch

SPECS = {
    "default": ({}, make_facts()),
    "full": (
        {
            "env": {"A": "b"},
            "files": mounts({"source": "/z", "target": "/a"}, {"tmpfs": "/t"}, {"source": "/f", "target": "/b"}),
            "limits": {"timeout_s": 2.5, "output_mib": 0.5},
        },
        make_facts(cgroups=V2),
    ),
    "plain": ({}, plain_facts()),
    "bare": ({"level": "L1", "processes": {"namespaces": "none"}}, plain_facts()),
}


def config(launch: Launch) -> dict[str, Any]:
    return msgspec.msgpack.decode(launch.config)


@pytest.mark.parametrize("name", SPECS)
def test_it_survives_the_cache(name: str) -> None:
    fields, facts = SPECS[name]
    launch = launched(make_spec(**fields), facts, files=("/f",))
    again = Launch.from_tuple(marshal.loads(marshal.dumps(launch.to_tuple())))
    assert {field: getattr(again, field) for field in FIELDS} == {field: getattr(launch, field) for field in FIELDS}


@pytest.mark.parametrize("count", [0, len(FIELDS) - 1, len(FIELDS) + 1])
def test_another_number_of_values_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="argument"):
        Launch.from_tuple((0,) * count)


def test_every_field_is_declared() -> None:
    assert set(Launch.__annotations__) - {"clauses"} == set(FIELDS)
    assert len(set(FIELDS)) == len(FIELDS)


def test_its_name_is_its_content() -> None:
    launch = launched(make_spec())
    assert launch.plan_sha256 == hashlib.sha256(launch.wire).hexdigest()
    assert launch.wire == compiled(make_spec()).wire()
    assert launch.host_sha256 == compiled(make_spec()).host_sha256


def test_what_the_readback_must_show() -> None:
    plan = compiled(make_spec(processes={"user": 7, "capabilities": {"add": ["NET_RAW"]}}))
    expected = launched(make_spec(processes={"user": 7, "capabilities": {"add": ["NET_RAW"]}})).expected
    assert expected["filters"] == plan.command.filters
    assert expected["default_deny"] is True
    assert expected["keep_capabilities"] == 1 << 13
    assert expected["landlock_abi"] == 7
    assert launched(make_spec(level="L1", files={"landlock": "off"})).expected["landlock_abi"] == 0


@pytest.mark.parametrize(("fields", "mac"), [({}, "landlock/7"), ({"level": "L1", "files": {"landlock": "off"}}, None)])
def test_the_mac_that_will_be_measured(fields: dict[str, object], mac: str | None) -> None:
    assert launched(make_spec(**fields)).mac == mac


def test_the_environment_starts_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert launched(make_spec()).env.keys() == {"PATH", "HOME", "LANG"}
    assert launched(make_spec()).env["HOME"] == "/tmp"
    changed = launched(make_spec(env={"HOME": "/work", "A": "b"})).env
    assert (changed["HOME"], changed["A"]) == ("/work", "b")
    assert changed["PATH"].startswith("/usr/local/sbin:")


@pytest.mark.parametrize(
    ("fields", "workdir"),
    [
        ({}, "/tmp"),
        ({"workdir": "/usr"}, "/usr"),
        ({"files": mounts({"source": "/x", "target": "/b"}, {"source": "/y", "target": "/a"})}, "/b"),
        ({"files": mounts({"source": "/x", "target": "//b/./c/"})}, "/b/c"),
        # What is where it is on the host is there for its files.
        ({"files": mounts({"source": "/opt/py", "target": "/opt/py"}, {"source": "/y", "target": "/a"})}, "/a"),
        ({"files": mounts({"tmpfs": "/t"}, {"source": "/y", "target": "/a"})}, "/a"),
        ({"files": mounts({"source": "/y", "target": "/a"}), "workdir": "/b"}, "/b"),
        ({"level": "L1", "processes": {"namespaces": "none"}}, "/"),
    ],
)
def test_where_commands_start(fields: dict[str, object], workdir: str) -> None:
    assert launched(make_spec(**fields)).workdir == workdir


@pytest.mark.parametrize(
    ("entries", "workdir"),
    [
        ([{"source": "/f", "target": "/main.py"}], "/tmp"),
        ([{"source": "/f", "target": "/main.py"}, {"source": "/d", "target": "/work"}], "/work"),
    ],
)
def test_no_command_starts_in_a_file(entries: list[dict[str, object]], workdir: str) -> None:
    assert launched(make_spec(files=mounts(*entries)), files=("/f",)).workdir == workdir


def test_sources_come_in_the_order_in_which_they_are_attached() -> None:
    spec = make_spec(
        files=mounts(
            {"source": "/1", "target": "/z"}, {"source": "/2", "target": "/a/b"}, {"source": "/3", "target": "/a"}
        )
    )
    assert launched(spec, files=("/1",)).sources == (("/3", "folder"), ("/2", "folder"), ("/1", "file"))


def test_limits_of_the_hosts_side() -> None:
    launch = launched(make_spec(limits={"timeout_s": 2.5, "output_mib": 0.5}))
    assert (launch.timeout_s, launch.output_bytes) == (2.5, 512 * 1024)
    default = launched(make_spec())
    assert (default.timeout_s, default.output_bytes) == (None, None)


@pytest.mark.parametrize(
    ("facts", "rootless", "kind", "ranges"),
    [
        (make_facts(), False, "ranges", True),
        (plain_facts(), True, "single", False),
        (plain_facts(ids=RANGES), True, "ranges", True),
        # Root of a container, which is not the host's.
        (make_facts(root=False, ids=SINGLE, host_root_id=None), True, "single", False),
    ],
)
def test_what_the_spawner_is_told(facts: HostFacts, rootless: bool, kind: str, ranges: bool) -> None:
    launch = launched(make_spec(), facts)
    told = config(launch)
    assert (told["rootless"], told["ids"]["kind"], launch.ranges) == (rootless, kind, ranges)
    assert (told["caller_uid"], told["caller_gid"]) == (facts.uid, facts.gid)
    assert (told["host_network"], told["bare"]) == (False, False)


def test_the_spawner_of_an_open_box_is_another() -> None:
    opened = launched(make_spec(level="L1", network={"mode": "host"}))
    bare = launched(make_spec(level="L1", processes={"namespaces": "none"}))
    assert config(opened)["host_network"]
    assert config(bare)["bare"]
    assert len({opened.config, bare.config, launched(make_spec()).config}) == 3


def test_the_spawner_knows_where_cgroups_are_made() -> None:
    told = config(launched(make_spec(), make_facts(cgroups=V2)))
    assert told["cgroups"] == [{"path": "/sys/fs/cgroup/ours", "version": 2, "switch_on": []}]


def test_a_plain_users_bare_box_needs_no_range() -> None:
    spec = make_spec(level="L1", protections={"namespaces": "best_effort"})
    launch = launched(spec, plain_facts(ids=RANGES, user_namespaces=REFUSED))
    assert not launch.ranges
    assert config(launch)["ids"] == {"kind": "single"}


def test_the_report_is_plain() -> None:
    launch = launched(make_spec())
    assert launch.report == tuple(
        (one.clause, one.wanted, one.got, one.by, one.why) for one in compiled(make_spec()).report
    )
