"""A box has the descriptors 0, 1 and 2, and no others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from immure import Sandbox, run

from .command_line import CommandLine, python
from .processes import descendants, open_descriptors

pytestmark = pytest.mark.rootless

#: Every descriptor that answers, whether /proc shows it or not.
LIST = python(
    "import fcntl\n"
    "found = []\n"
    "for n in range(4096):\n"
    "    try: fcntl.fcntl(n, fcntl.F_GETFD); found.append(n)\n"
    "    except OSError: pass\n"
    "print(found)"
)
#: Those of every process of the box that lets itself be looked into.
LIST_ALL = python(
    "import os\n"
    "for pid in sorted(filter(str.isdigit, os.listdir('/proc')), key=int):\n"
    "    try: print(pid, sorted(map(int, os.listdir(f'/proc/{pid}/fd'))))\n"
    "    except OSError as error: print(pid, type(error).__name__)"
)


def test_run_and_exec() -> None:
    assert run(LIST).stdout == b"[0, 1, 2]\n"
    assert run(LIST, stdin=b"x").stdout == b"[0, 1, 2]\n"
    with Sandbox() as box:
        for _ in range(3):
            assert box.exec(LIST).stdout == b"[0, 1, 2]\n"


def test_with_mounts_and_long_commands(tmp_path: Path) -> None:
    with Sandbox(mounts=[(tmp_path, "/work", "rw")]) as box:
        assert box.exec([*LIST, "x" * 20_000]).stdout == b"[0, 1, 2]\n"


def test_descriptors_that_the_caller_lets_others_inherit(cli: CommandLine) -> None:
    opened = [os.open("/etc", os.O_RDONLY | os.O_DIRECTORY) for _ in range(5)]
    for fd in opened:
        os.set_inheritable(fd, True)
    try:
        assert run(LIST).stdout == b"[0, 1, 2]\n"
        with Sandbox() as box:
            assert box.exec(LIST).stdout == b"[0, 1, 2]\n"
            assert box.exec(LIST, user=0).stdout == b"[0, 1, 2]\n" if os.geteuid() == 0 else True
        for words in ([], ["--max-output", "1"], ["-i"]):
            assert cli.run(*words, "--", *LIST, pass_fds=opened).stdout == b"[0, 1, 2]\n"
    finally:
        for fd in opened:
            os.close(fd)


@pytest.mark.root
def test_pid_1_holds_nothing_of_the_caller(tmp_path: Path) -> None:
    opened = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(opened, True)
    try:
        with Sandbox(mounts=[(tmp_path, "/work")]) as box:
            box.exec(["true"])
            pids = [box._box.pid, *(one.pid for one in descendants(box._box.pid))]
            links = {pid: open_descriptors(pid) for pid in pids}
    finally:
        os.close(opened)
    for held in links.values():
        assert all(
            link == "/dev/null" or link.startswith(("socket:", "anon_inode:", "pipe:")) for link in held.values()
        ), held


def test_of_all_processes_of_a_box() -> None:
    with Sandbox() as box:
        assert box.exec(["sh", "-c", "setsid sleep 30 & exit 0"]).ok
        lines = box.exec(LIST_ALL).stdout.text().splitlines()
    seen = dict(line.split(" ", 1) for line in lines)
    assert seen["1"] == "PermissionError"
    assert all(text in ("PermissionError", "[0, 1, 2]", "[0, 1, 2, 3]") for text in seen.values()), seen
    assert "[0, 1, 2]" in seen.values()


def test_the_descriptors_of_a_command_lead_to_nothing_of_the_host() -> None:
    program = python("import os; print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)])")
    text = run(program).stdout.text()
    assert text.count("pipe:[") == 2
    assert "/dev/null" in text
