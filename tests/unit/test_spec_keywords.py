"""The short forms that `run()` and `Sandbox()` take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hosts import make_spec, mounts

from immure.errors import SpecError
from immure.spec.keywords import spec_from_keywords
from immure.spec.models import Level, Limits, Mount, SandboxSpec

SHORT = {
    "level": ({"level": "L1"}, {"level": "L1"}),
    "level, as a level": ({"level": Level.L1}, {"level": "L1"}),
    "runtime": ({"runtime": "process"}, {"runtime": "process"}),
    "image": ({"image": "./root"}, {"image": "./root"}),
    "image, a path": ({"image": Path("root")}, {"image": "./root"}),
    "image, an absolute path": ({"image": Path("/srv/root")}, {"image": "/srv/root"}),
    "env": ({"env": {"A": "b"}}, {"env": {"A": "b"}}),
    "env, a number": ({"env": {"A": 1}}, {"env": {"A": "1"}}),
    "env, a path": ({"env": {"A": Path("/a")}}, {"env": {"A": "/a"}}),
    "workdir": ({"workdir": "/w"}, {"workdir": "/w"}),
    "landlock": ({"landlock": "off"}, {"files": {"landlock": "off"}}),
    "seccomp": ({"seccomp": "a.json"}, {"syscalls": {"profile": "a.json"}}),
    "seccomp, inline": ({"seccomp": {"defaultAction": "x"}}, {"syscalls": {"profile": {"defaultAction": "x"}}}),
    "network": ({"network": "host"}, {"network": {"mode": "host"}}),
    "user": ({"user": 7}, {"processes": {"user": 7}}),
    "capabilities, a list": (
        {"capabilities": ["NET_RAW"]},
        {"processes": {"capabilities": {"add": ["NET_RAW"]}}},
    ),
    "capabilities, a tuple": (
        {"capabilities": ("NET_RAW",)},
        {"processes": {"capabilities": {"add": ["NET_RAW"]}}},
    ),
    "capabilities, in full": (
        {"capabilities": {"drop": ["CHOWN"]}},
        {"processes": {"capabilities": {"drop": ["CHOWN"]}}},
    ),
    "namespaces": ({"namespaces": "none"}, {"processes": {"namespaces": "none"}}),
    "limits": ({"limits": {"pids": 5}}, {"limits": {"pids": 5}}),
    "a limit by itself": ({"timeout_s": 5}, {"limits": {"timeout_s": 5}}),
    "limits, both ways": (
        {"limits": {"pids": 5}, "memory_mib": 64, "cpus": 0.5, "disk_mib": 9, "output_mib": 1},
        {"limits": {"pids": 5, "memory_mib": 64, "cpus": 0.5, "disk_mib": 9, "output_mib": 1}},
    ),
    "protections": ({"protections": {"memory": "best_effort"}}, {"protections": {"memory": "best_effort"}}),
    "mounts, of two": ({"mounts": [("a", "/a")]}, {"files": mounts({"source": "a", "target": "/a"})}),
    "mounts, of three": (
        {"mounts": [("a", "/a", "rw"), ["b", "/b", "ro"]]},
        {
            "files": mounts(
                {"source": "a", "target": "/a", "access": "rw"}, {"source": "b", "target": "/b", "access": "ro"}
            )
        },
    ),
    "mounts, a path": (
        {"mounts": [(Path("/srv/a"), "/a")]},
        {"files": mounts({"source": "/srv/a", "target": "/a"})},
    ),
    "mounts, in full, a path": (
        {"mounts": [{"source": Path("/srv/a"), "target": "/a"}]},
        {"files": mounts({"source": "/srv/a", "target": "/a"})},
    ),
    "limits, as a model": ({"limits": Limits(pids=5), "cpus": 1}, {"limits": {"pids": 5, "cpus": 1}}),
    "mounts, in full": (
        {"mounts": [{"tmpfs": "/t", "size_mib": 3}]},
        {"files": mounts({"tmpfs": "/t", "size_mib": 3})},
    ),
    "mounts, as models": (
        {"mounts": [Mount(source="a", target="/a", access="rw")]},
        {"files": mounts({"source": "a", "target": "/a", "access": "rw"})},
    ),
}


@pytest.mark.parametrize("name", SHORT)
def test_short_form(name: str) -> None:
    keywords, document = SHORT[name]
    assert spec_from_keywords(keywords) == make_spec(**document)


def test_none_is_as_if_not_given() -> None:
    keywords = dict.fromkeys(("level", "env", "mounts", "limits", "timeout_s", "user", "capabilities"))
    assert spec_from_keywords(keywords) == SandboxSpec()


def test_nothing_given_is_the_default() -> None:
    assert spec_from_keywords({}) == SandboxSpec()


def test_what_is_not_given_comes_from_the_base() -> None:
    base = make_spec(
        level="L1",
        command=["a"],
        env={"A": "b"},
        files=mounts({"source": "a", "target": "/a", "access": "rw"}, {"tmpfs": "/t"}),
        limits={"pids": 5, "memory_mib": 64},
        protections={"landlock": "best_effort"},
    )
    assert spec_from_keywords({}, base) == base
    changed = spec_from_keywords({"pids": 6, "user": 3}, base)
    assert changed.limits == Limits(pids=6, memory_mib=64)
    assert (changed.processes.user, changed.level, changed.files) == (3, Level.L1, base.files)


def test_the_base_is_not_changed() -> None:
    base = make_spec(env={"A": "b"}, limits={"pids": 5})
    spec_from_keywords({"env": {"C": "d"}, "pids": 6}, base)
    assert base == make_spec(env={"A": "b"}, limits={"pids": 5})


BAD = {
    "unknown": ({"sandbox": 1}, "keywords", "unknown keyword 'sandbox'"),
    "unknown, what there is": ({"memory": 1}, "keywords", "memory_mib"),
    "level": ({"level": "L7"}, "$.spec.level", "'L7'"),
    "level, a number": ({"level": 2}, "$.spec.level", "'2'"),
    "user": ({"user": "1"}, "$.spec.processes.user", "got `str`"),
    "timeout": ({"timeout_s": "5"}, "$.spec.limits.timeout_s", "got `str`"),
    "network": ({"network": {"mode": "none"}}, "$.spec.network.mode", "got `object`"),
    "mount, a string": ({"mounts": ["a:/a"]}, "$.spec.files.mounts", "a mount is a tuple"),
    "mount, of one": ({"mounts": [("a",)]}, "$.spec.files.mounts", "a mount is a tuple"),
    "mount, of four": ({"mounts": [("a", "/b", "ro", "x")]}, "$.spec.files.mounts", "a mount is a tuple"),
    "mount, access": ({"mounts": [("a", "/b", "x")]}, "$.spec.files.mounts[0].access", "'x'"),
    "mount, target": ({"mounts": [("a", "/a"), ("a", "b")]}, "$.spec.files.mounts[1].target", "'b'"),
    "mounts, one string": ({"mounts": "a:/a"}, "$.spec.files.mounts", "a mount is a tuple"),
    "capabilities, one string": (
        {"capabilities": "NET_RAW"},
        "$.spec.processes.capabilities",
        "expected `object`, got `str`",
    ),
    "protections": ({"protections": 5}, "$.spec.protections", "got `int`"),
    "limits, unknown": ({"limits": {"pid": 5}}, "$.spec.limits", "did you mean 'pids'?"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_keyword(name: str) -> None:
    keywords, path, fragment = BAD[name]
    with pytest.raises(SpecError) as caught:
        spec_from_keywords(keywords)
    assert caught.value.path == path
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    "keywords",
    [
        {"limits": 5},
        {"limits": "pids"},
        {"limits": 5, "pids": 3},
        {"mounts": 5},
        {"mounts": [5]},
        {"mounts": [{"source": 1j, "target": "/a"}]},
        {"env": 5},
        {"env": "A=b"},
        {"env": {1: "a"}},
        {"protections": "memory"},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_a_spec_error(keywords: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        spec_from_keywords(keywords)
