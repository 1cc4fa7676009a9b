"""Nothing of a box outlives it: daemons, holders of its output, files in its private space."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

import immure
from security.boxes import run_in_box

# A daemon as the book has it: two forks, a session of its own, nothing open, deaf to polite signals.
_DAEMON = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 100)
        time.sleep(60)
    os._exit(0)
os.wait()
time.sleep(0.1)
"""


def _command(marker: str) -> list[str]:
    return ["/usr/bin/python3", "-I", "-c", _DAEMON, marker]


def _running(marker: str) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if marker.encode() in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def _marker() -> str:
    return f"immure-{secrets.token_hex(8)}"


def test_daemon_ends_with_the_command() -> None:
    marker = _marker()
    assert run_in_box(_command(marker)).exit.code == 0
    assert not _running(marker)

    subprocess.run(_command(marker), check=True)
    (daemon,) = _running(marker)
    os.kill(daemon, signal.SIGKILL)


def test_daemon_ends_with_the_box() -> None:
    marker = _marker()
    with immure.Sandbox(level="L2") as box:
        assert box.exec(_command(marker)).exit.code == 0
        assert len(_running(marker)) == 1, "a box that stays keeps what its commands started"
    assert not _running(marker)


def test_daemon_ends_at_the_timeout() -> None:
    marker = _marker()
    program = f"{_DAEMON}\ntime.sleep(60)"
    result = run_in_box(["/usr/bin/python3", "-I", "-c", program, marker], limits={"timeout_s": 1})
    assert result.exit.kind == "timeout"
    assert not _running(marker)


def test_holder_of_the_output_does_not_hold_the_caller() -> None:
    command = ["/bin/sh", "-c", "sleep 60 & echo done"]
    began = time.monotonic()
    result = run_in_box(command)
    assert result.stdout == b"done\n"
    assert time.monotonic() - began < 10

    control = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert control.stdout is not None
        assert control.stdout.readline() == b"done\n"
        control.wait()
        os.set_blocking(control.stdout.fileno(), False)
        assert control.stdout.read() is None, "outside, the pipe stays open"
    finally:
        os.killpg(control.pid, signal.SIGKILL)


def test_private_files_end_with_the_box() -> None:
    write = ["/bin/sh", "-c", "echo left > /tmp/left && echo left > /dev/shm/left"]
    assert run_in_box(write).exit.code == 0
    assert run_in_box(["/bin/ls", "-A", "/tmp", "/dev/shm"]).stdout.split() == [b"/dev/shm:", b"/tmp:"]

    with immure.Sandbox(level="L2") as box:
        assert box.exec(write).exit.code == 0
        assert box.exec(["/bin/cat", "/tmp/left", "/dev/shm/left"]).stdout == b"left\nleft\n"


def test_boxes_do_not_see_each_other() -> None:
    marker = _marker()
    listing = ["/bin/sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; ls /tmp; cat /proc/net/unix"]
    with immure.Sandbox(level="L2") as first, immure.Sandbox(level="L2") as second:
        first.exec(_command(marker))
        first.exec(["/bin/touch", f"/tmp/{marker}"])
        assert marker in first.exec(listing).stdout.text()
        assert marker not in second.exec(listing).stdout.text()
