"""What the doctor says of disks of machines' own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from immure.cli.doctor import doctor
from immure.host import disks

pytestmark = pytest.mark.rootless


def told(capsys: pytest.CaptureFixture[str], *, as_json: bool) -> str:
    doctor(level=None, json=as_json)
    return capsys.readouterr().out


def test_where_they_are_and_what_formats_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMMURE_DISKS", str(tmp_path))
    found = json.loads(told(capsys, as_json=True))["disks"]
    assert Path(found["folder"]).parent == tmp_path.resolve()
    assert (Path(found["formatter"]).name, found["missing"]) == ("mke2fs", None)
    assert f"in {found['folder']}, by {found['formatter']}" in told(capsys, as_json=False)


def test_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_formatter", lambda: None)
    found = json.loads(told(capsys, as_json=True))["disks"]
    assert (found["folder"], found["formatter"]) == (None, None)
    assert "e2fsprogs" in found["missing"]["command"]
    assert "e2fsprogs" in told(capsys, as_json=False)
