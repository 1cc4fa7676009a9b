"""What is measured of a box, and the level that comes of it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest

from immure import LevelNotReached, ProtectionUnavailable, RuntimeUnavailable, Sandbox, SpecError, run
from immure.evidence.levels import L2_PARTS

from .command_line import CommandLine

pytestmark = pytest.mark.rootless

OPEN_PROFILE = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO"}]}


def test_the_evidence_of_a_box() -> None:
    with Sandbox() as box:
        evidence = box.evidence()
    assert evidence.schema == "immure.evidence/v1"
    assert evidence.box == box.id
    assert (evidence.taken, evidence.boundary) == ("before_first_command", "kernel")
    assert (evidence.accelerated, evidence.hardware) == (False, False)
    assert evidence.mac is not None
    assert evidence.mac.startswith("landlock/")
    assert (evidence.awarded, evidence.capped_by) == ("L2", ())
    assert {part.part for part in evidence.parts} == L2_PARTS
    assert all(part.held and not part.why and part.observed for part in evidence.parts)
    assert evidence.host.no_new_privs
    assert evidence.host.capabilities["CapEff"] == "0000000000000000"
    json.loads(msgspec.json.encode(evidence))


def test_it_is_what_the_host_sees() -> None:
    with Sandbox() as box:
        seen = box.evidence().host
        proc = Path(f"/proc/{box._box.pid}")
        if os.geteuid() == 0:
            for name, inode in seen.namespaces.items():
                assert (proc / "ns" / name).stat().st_ino == inode, name
        assert (proc / "uid_map").read_text().split() == seen.uid_map.split()
        assert (proc / "gid_map").read_text().split() == seen.gid_map.split()
        own = {name: Path("/proc/self/ns", name).stat().st_ino for name in seen.namespaces}
    for name in ("user", "mnt", "pid", "net", "ipc", "uts"):
        assert seen.namespaces[name] != own[name], name


@pytest.mark.root
def test_the_filters_are_those_of_the_plan() -> None:
    with Sandbox() as box:
        wanted = box._launch.expected["filters"]
        assert isinstance(wanted, tuple)
        seen = box.evidence().host
    assert seen.seccomp_sha256 == hashlib.sha256(b"".join(wanted)).hexdigest()
    assert seen.seccomp_why == ""


def test_a_plain_user_is_told_why_there_are_no_filters() -> None:
    if os.geteuid() == 0:
        pytest.skip("rootless: root can read them")
    with Sandbox() as box:
        seen = box.evidence().host
    assert seen.seccomp_sha256 is None
    assert "root" in seen.seccomp_why


def test_two_boxes_of_a_spec_have_one_plan() -> None:
    with Sandbox() as one, Sandbox() as two, Sandbox(workdir="/", network="host", level="L1") as other:
        plans = [box.evidence().plan_sha256 for box in (one, two, other)]
        hosts = {box.evidence().host_sha256 for box in (one, two, other)}
    assert plans[0] == plans[1] != plans[2]
    assert len(hosts) == 1


def test_the_report_is_that_of_the_spec_also_where_the_plans_are_equal() -> None:
    """A limit that the host's own side enforces is no part of what the native program is told."""
    for seconds in (5.0, 6.0, None, 5.0):
        rows = {row.clause: row.wanted for row in run(["true"], timeout_s=seconds).report}
        assert rows["limits.timeout_s"] == (str(seconds) if seconds else "none (default)")


def test_more_than_was_asked_for_is_told() -> None:
    result = run(["true"], level="L1")
    assert (result.level.asked, result.level.awarded) == ("L1", "L2")


@pytest.mark.parametrize(
    ("keywords", "missing"),
    [
        ({"network": "host"}, {"network.namespace"}),
        ({"landlock": "off"}, {"files.mac"}),
        ({"network": "host", "landlock": "off"}, {"network.namespace", "files.mac"}),
    ],
    ids=str,
)
def test_what_caps_the_level(keywords: dict[str, str], missing: set[str]) -> None:
    with Sandbox(level="L1", **keywords) as box:
        evidence = box.evidence()
        assert box.exec(["true"]).ok
    assert (evidence.awarded, set(evidence.capped_by)) == ("L1", missing)
    assert (evidence.mac is None) == ("files.mac" in missing)
    for part in evidence.parts:
        assert part.held == (part.part not in missing)
        assert bool(part.why) == (part.part in missing)
    with pytest.raises(SpecError) as caught:
        run(["true"], **keywords)
    assert caught.value.hint


def test_without_namespaces_the_level_is_l1() -> None:
    with Sandbox(level="L1", namespaces="none") as box:
        evidence = box.evidence()
        assert evidence.awarded == "L1"
        assert "processes.pid_namespace" in evidence.capped_by
        assert box.exec(["true"]).ok
    with pytest.raises(SpecError):
        run(["true"], namespaces="none")


@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_filter_that_allows_by_default_reaches_no_level(level: str) -> None:
    with pytest.raises((LevelNotReached, SpecError)) as caught:
        run(["true"], seccomp=OPEN_PROFILE, level=level)
    assert "syscalls" in str(caught.value) or "default" in str(caught.value)


@pytest.mark.parametrize("level", ["L3", "L4"])
def test_levels_that_no_runtime_here_reaches(level: str, cli: CommandLine) -> None:
    with pytest.raises(RuntimeUnavailable) as caught:
        run(["true"], level=level)
    assert caught.value.need
    assert caught.value.have
    assert caught.value.hint
    assert cli.run("--level", level, "--", "true").returncode == 125


def test_landlock_can_not_be_opted_down_below_l2() -> None:
    try:
        assert run(["true"], protections={"landlock": "best_effort"}).level.awarded == "L2"
    except ProtectionUnavailable:
        pytest.skip("host: no Landlock here")
