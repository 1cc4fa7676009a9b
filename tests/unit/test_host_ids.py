"""Where boxes' ids come from: root's own ranges, /etc/subuid, or the caller's id alone."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from immure.host import ids
from immure.host.facts import IdRange

Host = Callable[..., IdRange]
TOOLS = {"newuidmap": "/usr/bin/newuidmap", "newgidmap": "/usr/bin/newgidmap"}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A plain user `ada`, 1001, on a host with these files and programs."""

    def found(subuid: str | None, subgid: str | None = "", tools: dict[str, str] = TOOLS) -> IdRange:
        real = ids._subordinate
        files = {"/etc/subuid": subuid, "/etc/subgid": subuid if subgid == "" else subgid}

        def subordinate(file: str) -> tuple[int, int] | None:
            copy = tmp_path / Path(file).name
            content = files[file]
            if content is not None:
                copy.write_text(content)
            return real(str(copy))

        monkeypatch.setattr(ids, "is_root", lambda: False)
        monkeypatch.setattr(os, "geteuid", lambda: 1001)
        monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="ada"))
        monkeypatch.setattr(ids.shutil, "which", tools.get)
        monkeypatch.setattr(ids, "_subordinate", subordinate)
        return ids.find_ids()

    return found


@pytest.mark.parametrize(
    ("line", "base", "slots"),
    [
        ("ada:100000:65536\n", 100_000, 64),
        ("1001:100000:65536\n", 100_000, 64),
        ("bob:1:9\n# ada:5:5\nada:100000:1024\n", 100_000, 1),
        ("ada:100000:2047\n", 100_000, 1),
        ("ada:100000:65536\nada:900000:65536\n", 100_000, 64),
    ],
)
def test_a_range_of_the_users_own(line: str, base: int, slots: int, host: Host) -> None:
    assert host(line) == IdRange(
        kind="ranges", base_uid=base, base_gid=base, size=1024, slots=slots,
        newuidmap=TOOLS["newuidmap"], newgidmap=TOOLS["newgidmap"],
    )  # fmt: skip


def test_both_files_bound_the_number_of_boxes(host: Host) -> None:
    found = host("ada:100000:65536\n", "ada:200000:4096\n")
    assert (found.base_uid, found.base_gid, found.slots) == (100_000, 200_000, 4)


@pytest.mark.parametrize(
    ("subuid", "subgid"),
    [
        ("bob:100000:65536\n", ""),
        ("", ""),
        (None, ""),
        ("ada:100000:65536\n", None),
        ("ada:100000:65536\n", "bob:1:9\n"),
        ("ada:100000:1023\n", ""),
        ("ada:x:65536\n", ""),
        ("ada:100000\n", ""),
        ("adam:100000:65536\n", ""),
    ],
)
def test_without_one_the_callers_id_alone(subuid: str | None, subgid: str | None, host: Host) -> None:
    assert host(subuid, subgid) == IdRange(kind="single")


@pytest.mark.parametrize("missing", ["newuidmap", "newgidmap"])
def test_without_the_programs_the_callers_id_alone(missing: str, host: Host) -> None:
    tools = {name: path for name, path in TOOLS.items() if name != missing}
    assert host("ada:100000:65536\n", tools=tools) == IdRange(kind="single")


def test_root_takes_ranges_that_nobody_is_allotted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "is_root", lambda: True)
    found = ids.find_ids()
    assert (found.kind, found.size, found.newuidmap) == ("ranges", 65_536, None)
    end = found.base_uid + found.size * found.slots
    # Above systemd-nspawn's, below its foreign range and below 2^31, past which some programs count wrong.
    assert 0x6FFF_0000 <= found.base_uid < end <= 0x7FFE_0000 or end < 2**31
    assert found.base_uid == found.base_gid > 0
