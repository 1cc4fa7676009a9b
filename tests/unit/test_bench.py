"""The benchmark's own reckoning: ratios at a percentile, and others that are named where they are absent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from immure.policy.seccomp import compare, load_preset, parse_profile

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import oci, report, rivals, sentry
from bench.contender import Sample
from bench.filters import Filters
from bench.gates import judge, missed
from bench.measure import Measured


def states(exec_ns: list[float], vfork_ns: list[float]) -> dict[str, str]:
    verdicts = judge({"immure-exec": exec_ns, "vfork": vfork_ns})
    return {one.gate.what[-3:]: one.state for one in verdicts if one.gate.what.startswith("command in a ready box")}


def test_a_command_is_judged_at_the_median_and_at_its_tail() -> None:
    bare = [100.0] * 95 + [200.0] * 5
    assert states([140.0] * 95 + [800.0] * 5, bare) == {"p50": "met", "p99": "met"}
    assert states([141.0] * 95 + [800.0] * 5, bare) == {"p50": "MISSED", "p99": "met"}
    assert states([140.0] * 95 + [801.0] * 5, bare) == {"p50": "met", "p99": "MISSED"}
    assert states([], bare) == {"p50": "not measured", "p99": "not measured"}


def test_who_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals.shutil, "which", lambda _: None)
    monkeypatch.setattr(rivals, "find_spec", lambda _: None)
    monkeypatch.setattr(rivals, "RIVALS", (*rivals._runtimes("crun", rivals.CRUN), rivals.RIVALS[0]))
    absent = rivals.absent()
    assert absent["crun"] == absent["crun-exec"] == "apt-get install crun"
    assert absent["nsjail"] == rivals.EXTRA
    filters = Filters(Path("/filter"), "a filter")
    assert "absent: crun (apt-get install crun)" in report.heading(report.describe_host(), filters, absent)
    assert report.as_json({}, filters, absent, [], {}, Measured(), [])["absent"] == absent


def test_a_container_has_our_filter() -> None:
    with oci.bundle(["/bin/true"]) as folder:
        config = json.loads(Path(folder, "config.json").read_text())
    profile = parse_profile(json.dumps(config["linux"]["seccomp"]).encode(), source="bundle")
    arches = ("x86_64", "aarch64", "riscv64")
    assert compare(profile, load_preset("default"), arches=arches).relation == "equal"
    assert compare(profile, load_preset("strict"), arches=arches).relation != "equal"
    assert not any(config["process"]["capabilities"].values())


def test_a_container_for_gvisor_has_no_ids_and_no_filter_of_its_own() -> None:
    with oci.bundle(["/bin/true"], sentry=True) as folder:
        config = json.loads(Path(folder, "config.json").read_text())
    assert {one["type"] for one in config["linux"]["namespaces"]} == {"pid", "network", "ipc", "uts", "mount"}
    assert not {"seccomp", "uidMappings", "gidMappings"} & config["linux"].keys()
    assert config["root"]["readonly"]


IDLE = {"L2": {1: {"all": 512.0, "files": 256.0}}, "L3": {sentry.MANY: {"all": 16 * 1024.0, "files": 1024.0}}}


def test_the_tail_in_a_sentry_is_judged_by_the_other_median() -> None:
    by_hand = [12e6] * 95 + [50e6] * 5

    def states(tail: float) -> dict[float, str]:
        verdicts = judge({"immure-l3-exec": [4e6] * 95 + [tail] * 5, "runsc-exec": by_hand}, sentry.GATES)
        return {one.gate.at: one.state for one in verdicts if one.gate.of == "immure-l3-exec"}

    assert states(12e6) == {0.5: "met", 0.99: "met"}
    assert states(12.1e6) == {0.5: "met", 0.99: "MISSED"}


def test_memory_is_judged_in_mib() -> None:
    series = sentry.series_of(Measured(), IDLE)
    (memory,) = [one for one in judge(series, sentry.GATES) if one.gate.to == "MiB"]
    assert memory.ratio is not None
    assert (memory.ratio.value, memory.state) == (16.0, "met")
    assert missed(judge(series, sentry.GATES), {*sentry.CONTENDERS, *series})
    assert not missed([memory], {*series})


def test_costs_are_told_with_their_ratios_and_the_claim() -> None:
    measured = Measured()
    for place, ns in (("bare", 100), ("l2", 200), ("l3", 1000)):
        measured.samples[f"inside-{place}"] = [Sample(1, {"getppid_x1000": ns * 1000})]
    rows = {row["what"]: row for row in sentry.cost_rows(sentry.series_of(measured, IDLE))}
    getppid = rows["getppid"]
    assert getppid["p50"] == {"bare": 100, "L2": 200, "L3": 1000, "L3, ptrace": None}
    assert (getppid["l3_to_l2"], getppid["l3_to_bare"], getppid["claimed"]) == (5, 10, "+10-20 %")
    assert rows["python3 -SI -c pass"]["l3_to_l2"] is None
    table = sentry.cost_table(list(rows.values()))
    assert "getppid, ns" in table
    assert "network latency beyond loopback: not measured" in table
