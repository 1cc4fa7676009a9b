"""`immure-init filters`: what it reads of running processes, and that they go on as before."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from immure import Sandbox
from immure.host.native import native_program
from immure.host.tree import below

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]

Read = dict[int, list[bytes] | int]


def filters_of(*pids: int) -> Read:
    command = [native_program(), "filters", *map(str, pids)]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=30)
    return msgspec.msgpack.decode(answer.stdout, type=Read, strict=True)


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


@pytest.mark.root
def test_those_of_a_command_are_the_plan_s() -> None:
    with Sandbox() as box:
        process = box.start(["sleep", "60"])
        # The process that was inspected may be on its way out.
        (pid,) = [one for one in below(box._box.pid) if name_of(one) == "sleep"]
        wanted = box._launch.expected["filters"]
        assert isinstance(wanted, tuple)
        assert filters_of(pid) == {pid: list(wanted)}
        assert process.poll() is None
        assert (status_of(pid)["TracerPid"], status_of(pid)["State"][0]) == ("0", "S")
        process.close()


@pytest.mark.root
def test_one_without_any_has_an_empty_list() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert filters_of(child.pid) == {child.pid: []}
        child.kill()


def test_one_that_is_gone() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert filters_of(child.pid) == {child.pid: errno.ESRCH}


@pytest.mark.skipif(os.geteuid() == 0, reason="rootless: root may read them")
def test_one_that_a_plain_user_may_not_read() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert filters_of(child.pid, 1) == {child.pid: errno.EACCES, 1: errno.EPERM}
        assert status_of(child.pid)["TracerPid"] == "0"
        child.kill()


@pytest.mark.root
def test_one_that_somebody_else_traces() -> None:
    script = "import ctypes, os; ctypes.CDLL(None).ptrace(0, 0, 0, 0); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert filters_of(child.pid) == {child.pid: errno.EPERM}
        child.kill()


#: Busy, it counts signals, of which the kernel keeps each, and says how many when it is told to end.
COUNTING = """
import os, signal, sys
reader, writer = os.pipe2(os.O_NONBLOCK)
signal.set_wakeup_fd(writer)
signal.signal(signal.SIGRTMIN, lambda *_: None)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.read(reader, 1000).count(bytes([signal.SIGRTMIN]))))
print(flush=True)
while True:
    pass
"""


def test_what_runs_goes_on_and_loses_no_signal() -> None:
    with subprocess.Popen([sys.executable, "-c", COUNTING], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        with subprocess.Popen([native_program(), "filters", *[str(child.pid)] * 400], stdout=subprocess.PIPE) as reader:
            for _ in range(100):
                child.send_signal(signal.SIGRTMIN)
                time.sleep(0.001)
            reader.communicate()
            assert reader.returncode == 0
        assert status_of(child.pid)["State"][0] == "R"
        child.terminate()
        assert child.wait(10) == 100


def test_what_was_stopped_stays_so() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        child.send_signal(signal.SIGSTOP)
        assert eventually(lambda: status_of(child.pid)["State"][0] == "T")
        filters_of(child.pid)
        assert eventually(lambda: status_of(child.pid)["State"][0] == "T")
        time.sleep(0.05)
        assert status_of(child.pid)["State"][0] == "T"
        child.send_signal(signal.SIGCONT)
        assert eventually(lambda: status_of(child.pid)["State"][0] == "S")
        child.kill()


#: Its filter has a supervisor for getppid, which does not answer.
SUPERVISED = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, 110), (0x06, 0, 0, 0x7fc00000), (0x06, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(rules), ctypes.addressof(code)))
libc.prctl(38, 1, 0, 0, 0)
print(libc.syscall(317, 1, 8, program) > 0, flush=True)
libc.syscall(110)
"""


@pytest.mark.root
def test_one_that_waits_for_a_supervisor_is_left_alone() -> None:
    """The supervisor would be asked once more, and gVisor's takes that for a reason to end the process."""
    with subprocess.Popen([sys.executable, "-c", SUPERVISED], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"True\n"
        assert eventually(lambda: "notification" in Path(f"/proc/{child.pid}/wchan").read_text())
        assert filters_of(child.pid) == {child.pid: errno.EBUSY}
        child.kill()


#: A process that waits in vfork for a child that stops itself before its execve: no ptrace stops it meanwhile.
IN_VFORK = """
import ctypes, os
libc = ctypes.CDLL(None)
print(os.getpid(), flush=True)
# clone with CLONE_VFORK alone: a stack of its own.
if libc.syscall(56, 0x4000 | 17, 0, 0, 0, 0) == 0:
    libc.syscall(62, libc.syscall(39), 19)
    libc.syscall(231, 0)
print('on', flush=True)
"""


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.root
def test_one_that_can_not_stop_is_given_up_and_goes_on(killed: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", IN_VFORK], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert eventually(lambda: [status_of(one)["State"][0] for one in below(child.pid)] == ["T"])
        (inner,) = below(child.pid)
        if killed:
            reader = subprocess.Popen([native_program(), "filters", str(child.pid)], stdout=subprocess.PIPE)
            assert eventually(lambda: status_of(child.pid)["TracerPid"] == str(reader.pid))
            reader.kill()
            reader.communicate()
        else:
            assert filters_of(child.pid) == {child.pid: errno.ETIMEDOUT}
        assert status_of(child.pid)["TracerPid"] == "0"
        os.kill(inner, signal.SIGCONT)
        assert child.stdout.readline() == b"on\n"
        assert child.wait(10) == 0


def test_other_arguments_are_refused() -> None:
    for arguments in ([], ["x"], ["1", "-"]):
        answer = subprocess.run([native_program(), "filters", *arguments], capture_output=True, check=False)
        assert (answer.returncode, answer.stdout) == (2, b"")
        assert b"filters PID" in answer.stderr
