"""What is read for a spec: its mounts' sources and its profile."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hosts import make_spec, mounts

from immure.engine.prepare import read_inputs
from immure.errors import ProfileError, SpecError
from immure.host.facts import SourceFacts
from immure.plan.compile import Inputs

PROFILE = '{"defaultAction": "SCMP_ACT_KILL", "syscalls": []}'


def inputs_of(base: Path, **fields: object) -> Inputs:
    return read_inputs(make_spec(**fields), base=base, hostname="immure")


def sources(base: Path, *entries: str) -> tuple[SourceFacts, ...]:
    wanted = ({"source": entry, "target": f"/{index}"} for index, entry in enumerate(entries))
    return inputs_of(base, files=mounts({"tmpfs": "/t"}, *wanted)).sources


def test_sources_are_looked_at_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("folder")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [(one.path, one.kind) for one in sources(tmp_path, "folder", "./file", "link", "~/folder", "/usr", ".")] == [
        (f"{tmp_path}/folder", "folder"),
        (f"{tmp_path}/file", "file"),
        (f"{tmp_path}/link", "folder"),
        (f"{tmp_path}/folder", "folder"),
        ("/usr", "folder"),
        (str(tmp_path), "folder"),
    ]


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        sources(tmp_path, ".", "missing")
    assert caught.value.path == "$.spec.files.mounts[2].source"
    assert str(tmp_path / "missing") in caught.value.message
    assert caught.value.have == "No such file or directory"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_a_source_that_is_no_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path = Path("/dev/null")
    with pytest.raises(SpecError, match="can't be used") as caught:
        sources(tmp_path, str(path))
    assert caught.value.path == "$.spec.files.mounts[1].source"


def test_a_source_with_a_nul(tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        sources(tmp_path, "a\0b")


def test_the_default_profile_denies(tmp_path: Path) -> None:
    assert inputs_of(tmp_path).profile.default_action.value == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize("name", ["p.json", "./p.json", "absolute"])
def test_a_profile_is_read_from_its_path(name: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(PROFILE)
    name = str(tmp_path / "p.json") if name == "absolute" else name
    assert inputs_of(tmp_path, syscalls={"profile": name}).profile.default_action.value == "SCMP_ACT_KILL"


def test_a_profile_may_be_in_the_spec(tmp_path: Path) -> None:
    wanted = {"defaultAction": "SCMP_ACT_KILL", "syscalls": []}
    assert inputs_of(tmp_path, syscalls={"profile": wanted}).profile.default_action.value == "SCMP_ACT_KILL"


def test_a_profile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        inputs_of(tmp_path, syscalls={"profile": "missing.json"})
    assert caught.value.path == "$.spec.syscalls.profile"
    assert str(tmp_path / "missing.json") in caught.value.message


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"defaultAction": "SCMP_ACT_PANIC"}', '{"defaultAction": "SCMP_ACT_ALLOW", "x": 1}']
)
def test_a_profile_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ProfileError, match=r"p\.json"):
        inputs_of(tmp_path, syscalls={"profile": "p.json"})
