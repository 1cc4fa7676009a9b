"""From a spec to what is read for it on this machine: its mounts' sources and its profile."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import msgspec
import pytest
from hosts import make_facts, make_spec, mounts, of_kind

from immure.engine import prepare
from immure.errors import ProfileError, SpecError
from immure.plan.launch import Launch
from immure.plan.model import Plan
from immure.plan.operations import UserMount
from immure.policy.seccomp import PRESETS

PROFILE = {"defaultAction": "SCMP_ACT_KILL", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}


@pytest.fixture(autouse=True)
def any_host(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Not this one, whose boxes must not find plans for it."""
    monkeypatch.setattr(prepare, "host_facts", make_facts)
    monkeypatch.setattr(prepare, "_launches", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def plan_of(base: Path, **fields: object) -> Plan:
    return prepare.plan_of(make_spec(**fields), base=base)


def launch_of(base: Path, **fields: object) -> Launch:
    return prepare.prepare(make_spec(**fields), base=base)


def with_sources(*entries: str) -> dict[str, object]:
    return mounts({"tmpfs": "/t"}, *({"source": entry, "target": f"/{i}"} for i, entry in enumerate(entries)))


def test_sources_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.setenv("HOME", str(tmp_path))
    launch = launch_of(tmp_path, files=with_sources("folder", "./file", "link", "~/folder", "/usr", "."))
    assert launch.sources == (
        (f"{tmp_path}/folder", "folder"),
        (f"{tmp_path}/file", "file"),
        (f"{tmp_path}/link", "folder"),
        (f"{tmp_path}/folder", "folder"),
        ("/usr", "folder"),
        (str(tmp_path), "folder"),
    )


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(tmp_path, files=with_sources(".", "missing"))
    assert caught.value.path == "$.spec.files.mounts[2].source"
    assert str(tmp_path / "missing") in caught.value.message
    assert caught.value.have == "No such file or directory"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_source_that_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    else:
        path = Path("/dev/null")
    with pytest.raises(SpecError, match="can't be used") as caught:
        plan_of(tmp_path, files=with_sources(str(path)))
    assert caught.value.path == "$.spec.files.mounts[1].source"


def test_a_source_with_a_nul(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        plan_of(tmp_path, files=with_sources("a\0b"))


def test_the_default_profile_denies(tmp_path: Path) -> None:
    assert plan_of(tmp_path).default_deny


@pytest.mark.parametrize("name", ["p.json", "./p.json", "absolute"])
def test_a_profile_is_read_from_its_path_or_the_spec(name: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_bytes(msgspec.json.encode(PROFILE))
    name = str(tmp_path / "p.json") if name == "absolute" else name
    filters = plan_of(tmp_path, syscalls={"profile": name}).command.filters
    assert filters == plan_of(tmp_path, syscalls={"profile": PROFILE}).command.filters
    assert filters != plan_of(tmp_path).command.filters


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(tmp_path, syscalls={"profile": "missing.json"})
    assert caught.value.path == "$.spec.syscalls.profile"
    assert str(tmp_path / "missing.json") in caught.value.message


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_comes_before_a_file_of_its_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(msgspec.json.encode(PROFILE))
    preset = plan_of(tmp_path, syscalls={"profile": name}).command.filters
    assert preset == plan_of(Path("/nowhere"), syscalls={"profile": name}).command.filters
    assert preset != plan_of(tmp_path, syscalls={"profile": f"./{name}"}).command.filters
    assert (preset == plan_of(tmp_path).command.filters) == (name == "default")


def test_presets_are_remembered_apart(tmp_path: Path) -> None:
    launches = [launch_of(tmp_path, syscalls={"profile": name}) for name in PRESETS]
    assert len({launch.wire for launch in launches}) == len(PRESETS)
    assert launch_of(tmp_path, syscalls={"profile": "strict"}) is launches[PRESETS.index("strict")]


def test_a_name_that_is_nearly_a_presets(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(tmp_path, syscalls={"profile": "pyhton"})
    assert caught.value.need is not None
    assert all(name in caught.value.need for name in PRESETS)
    assert caught.value.hint == "did you mean the preset `python`?"
    for path in ("pyhton.json", "xyz"):
        with pytest.raises(SpecError) as caught:
            plan_of(tmp_path, syscalls={"profile": path})
        assert caught.value.hint is None


def test_a_profile_of_kubernetes(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_bytes(msgspec.json.encode(PROFILE))
    (tmp_path / "profile.yaml").write_text(
        "apiVersion: security-profiles-operator.x-k8s.io/v1beta1\nkind: SeccompProfile\nmetadata: {name: x}\n"
        "spec: {defaultAction: SCMP_ACT_KILL, syscalls: [{action: SCMP_ACT_ALLOW, names: [read]}]}\n"
    )
    found = [plan_of(tmp_path, syscalls={"profile": f"profile.{form}"}).command.filters for form in ("json", "yaml")]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"defaultAction": "SCMP_ACT_PANIC"}', '{"defaultAction": "SCMP_ACT_ALLOW", "x": 1}']
)
def test_a_profile_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProfileError, match=r"p\.json"):
        plan_of(tmp_path, syscalls={"profile": "p.json"})


# What is remembered within a process.


def test_the_same_spec_is_prepared_once(tmp_path: Path) -> None:
    assert launch_of(tmp_path) is launch_of(tmp_path)


def test_what_was_read_is_part_of_what_is_remembered(tmp_path: Path) -> None:
    profile, source = tmp_path / "p.json", tmp_path / "source"
    profile.write_bytes(msgspec.json.encode(PROFILE))
    source.mkdir()
    fields = {"syscalls": {"profile": "p.json"}, "files": with_sources("source")}
    first = launch_of(tmp_path, **fields)
    profile.write_bytes(msgspec.json.encode({**PROFILE, "defaultAction": "SCMP_ACT_TRAP"}))
    second = launch_of(tmp_path, **fields)
    assert first.expected["filters"] != second.expected["filters"]
    source.rmdir()
    source.write_text("")
    third = launch_of(tmp_path, **fields)
    assert (second.sources[0][1], third.sources[0][1]) == ("folder", "file")


def test_where_it_starts_is_part_of_what_is_remembered(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "source").mkdir(parents=True)
    first, second = (launch_of(tmp_path / name, files=with_sources("source")) for name in ("a", "b"))
    assert first.sources != second.sources


def test_the_host_name_is_part_of_what_is_remembered(tmp_path: Path) -> None:
    plans = {prepare.prepare(make_spec(), base=tmp_path, hostname=name).wire for name in ("one", "two")}
    assert len(plans) == 2


def test_the_plan_is_that_of_the_launch(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, files=with_sources("/usr"))
    assert plan.wire() == launch_of(tmp_path, files=with_sources("/usr")).wire
    assert [op.source for op in of_kind(plan.root, UserMount)] == ["/usr"]
