"""The moment of entering: a command, a folder or a link of the box's must not lead back to what it was started from."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

import immure
from security.boxes import run_in_box

# Descriptors that the makers of the box may have had at some time.
_DESCRIPTORS = range(64)


def _box_is(argv: list[str], **options: object) -> str:
    """What becomes of a command: its error, or its output."""
    try:
        return run_in_box(argv, **options).stdout.text()
    except immure.ExecFailed as error:
        return type(error).__name__


def test_own_program_is_not_run_again() -> None:
    """/proc/self/exe is the box's own program until the command has been started (CVE-2019-5736)."""
    assert _box_is(["/proc/self/exe", "-c", "print(6 * 7)"]) == "ExecFailed"

    again = ["/usr/bin/python3", "-c", "import os; os.execv('/proc/self/exe', ['again', '-c', 'print(6 * 7)'])"]
    assert subprocess.run(again, capture_output=True, check=True).stdout == b"42\n"


@pytest.mark.parametrize("road", ["script", "link"])
def test_own_program_is_not_run_by_a_file_of_the_box(road: str, tmp_path: Path) -> None:
    program = tmp_path / "program"
    if road == "script":
        program.write_text("#!/proc/self/exe\n")
        program.chmod(0o755)
    else:
        program.symlink_to("/proc/self/exe")
    assert _box_is(["/work/program"], mounts=[(str(tmp_path), "/work", "rw")]) == "ExecFailed"

    script = tmp_path / "control"
    script.write_text("#!/usr/bin/env true\n")
    script.chmod(0o755)
    assert run_in_box(["/work/control"], mounts=[(str(tmp_path), "/work", "rw")]).exit.code == 0


@pytest.mark.parametrize("through_link", [False, True], ids=["path", "link"])
def test_working_directory_is_no_forgotten_descriptor(through_link: bool, tmp_path: Path) -> None:
    """A descriptor of the host's that is still open when the folder is entered would be a way out (CVE-2024-21626)."""
    seen = set()
    for descriptor in _DESCRIPTORS:
        workdir = f"/proc/self/fd/{descriptor}"
        if through_link:
            link = tmp_path / str(descriptor)
            link.symlink_to(workdir)
            workdir = f"/work/{descriptor}"
        seen.add(_box_is(["/bin/pwd", "-P"], workdir=workdir, mounts=[(str(tmp_path), "/work", "rw")]))
    assert seen == {"ExecFailed"}

    assert _box_is(["/bin/pwd", "-P"], workdir="/proc/self") != "ExecFailed"


# Looks into every new process that still has the name of the box's own program, before its execve and after its birth.
_WATCHER = """
import json, os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
name, result = sys.argv[1], sys.argv[2]
seen, entered = set(), []
end = time.monotonic() + float(sys.argv[3])
while time.monotonic() < end:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(pid) == 1 or open(f"/proc/{pid}/comm").read().strip() != name:
                continue
            seen.add(pid)
            descriptors = os.listdir(f"/proc/{pid}/fd")
            open(f"/proc/{pid}/mem", "r+b").close()
            if open(f"/proc/{pid}/comm").read().strip() == name:
                entered.append([pid, descriptors])
        except OSError:
            continue
with open(result + ".new", "w") as file:
    json.dump({"seen": len(seen), "entered": entered}, file)
os.rename(result + ".new", result)
"""


def test_command_is_out_of_reach_before_it_starts(tmp_path: Path) -> None:
    """A command is forked from the stem; until its execve it has what the stem has in memory."""
    watch = ["/usr/bin/python3", "-I", "-c", _WATCHER]
    with immure.Sandbox(level="L2") as box:
        box.exec([*watch, "immure-init", "/tmp/result", "4"])
        end = time.monotonic() + 5
        while time.monotonic() < end:
            box.exec(["/bin/true"])
        result = json.loads(box.exec(["/bin/cat", "/tmp/result"]).stdout)
    assert result["seen"] > 3, "some were watched at the right moment"
    assert not result["entered"]

    sleeper = [*watch[:-1], "import time; open('/proc/self/comm', 'w').write('immure-init'); time.sleep(2)"]
    with subprocess.Popen(sleeper):
        subprocess.run([*watch, "immure-init", str(tmp_path / "result"), "1"], check=True)
        while not (tmp_path / "result").exists():
            time.sleep(0.1)
    assert json.loads((tmp_path / "result").read_text())["entered"]


@pytest.mark.parametrize("target", ["/proc/1/root", "/proc/2/cwd", "/proc/self/fd/3"])
def test_mount_target_does_not_follow_links_of_the_box(target: str, tmp_path: Path) -> None:
    """A link that an earlier box left in a writable folder is no place for a mount of the next one."""
    work, other = tmp_path / "work", tmp_path / "other"
    work.mkdir()
    other.mkdir()
    (work / "link").symlink_to(target)
    with pytest.raises(immure.ImmureError):
        immure.run(["/bin/true"], mounts=[(str(work), "/work", "rw"), (str(other), "/work/link", "rw")])

    (work / "link").unlink()
    (work / "link").mkdir()
    assert (
        run_in_box(["/bin/true"], mounts=[(str(work), "/work", "rw"), (str(other), "/work/link", "rw")]).exit.code == 0
    )
