"""`image: host` in a machine: what any box sees of the host, packed once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immure import Sandbox, run
from immure.engine.machine_images import packed_host
from immure.engine.prepare import host_facts

pytestmark = pytest.mark.rootless
SPEC: dict[str, Any] = {"runtime": "qemu", "level": "L3"}
#: What is there, of which kind and mode, and what it holds.
SHOWN = r"find /etc /bin /lib /var /home /usr/share/zoneinfo/Europe /usr/sbin -printf '%p %y %m %s %l\n' | sort"


@pytest.fixture(scope="module")
def kernel_is_named(kernel: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMMURE_KERNEL", str(kernel))
        yield


@pytest.fixture(scope="module")
def box(kernel_is_named: None) -> Iterator[Sandbox]:
    """The first takes as long as copying what this host has installed."""
    with Sandbox(**SPEC, name="fine", user=1234, mounts=[{"tmpfs": "/work"}]) as made:
        yield made


def said(box: Sandbox, script: str) -> str:
    return box.exec(["/bin/sh", "-c", f"exec 2>&1; {script}"]).stdout.text()


def test_the_host_s_own_python(box: Sandbox) -> None:
    box.files.write("/work/a.py", b"import json, os, ssl; print(json.dumps([6 * 7, os.getuid()]))")
    result = box.exec(["python3", "/work/a.py"])
    assert result.stdout == b"[42, 1234]\n", result.stderr
    assert box.evidence().boundary == "vm"


def test_it_shows_what_any_box_shows(box: Sandbox) -> None:
    with Sandbox(name="fine", user=1234, mounts=[{"tmpfs": "/work"}]) as plain:
        wanted = said(plain, SHOWN).splitlines()
        # Python compiles anew what is not as old as it was.
        times = "stat -c '%n %Y' /usr/bin/env /usr/lib/python3*/json/__init__.py"
        hashed = f"{times}; cd /usr/bin; sha256sum env /etc/ssl/certs/ca-certificates.crt /etc/passwd /etc/hosts"
        assert said(box, hashed) == said(plain, hashed)
        found = said(box, SHOWN).splitlines()
        closed = [line for line in wanted if line not in found and " f " in line]
        unreadable = said(plain, "find /usr/sbin /etc ! -type l ! -readable").splitlines()
    assert {line.split(" ", 1)[0] for line in closed} <= set(unreadable)
    # A folder's size is the file system's matter.
    files = [line for line in found if " d " not in line]
    assert set(files) <= set(wanted)
    assert len(files) > 100


def test_nothing_of_it_can_be_changed(box: Sandbox) -> None:
    for user in (0, 1234):
        told = box.exec(["/bin/sh", "-c", "exec 2>&1; touch /usr/x; touch /etc/x; touch /x; touch /work/x"], user=user)
        assert told.stdout.text().count("Read-only file system") == 3, told.stdout
    assert said(box, "ls /work") == "a.py\nx\n" or "x" in said(box, "ls /work"), "the control"


def test_names_and_users_are_the_box_s(box: Sandbox) -> None:
    assert "user:x:1234:1234" in said(box, "cat /etc/passwd")
    assert "127.0.1.1\tfine\n" in said(box, "cat /etc/hosts")
    assert "user:x:7:7" in run(["cat", "/etc/passwd"], **SPEC, user=7).stdout.text()


def test_another_box_takes_the_same_image(box: Sandbox) -> None:
    place = packed_host(host_facts().image)
    made = place.stat().st_ino
    assert run(["true"], **SPEC).ok
    assert packed_host(host_facts().image).stat().st_ino == made


def test_on_the_command_line(box: Sandbox, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "immure", "run", "--runtime", "qemu", "--level", "L3", "--")
    ended = subprocess.run(
        [*command, "python3", "-c", "print(6 * 7)"], capture_output=True, text=True, check=False, timeout=120
    )
    assert (ended.returncode, ended.stdout) == (0, "42\n"), ended.stderr
