"""Sockets of a box, reached from out here."""

from __future__ import annotations

import errno
import os

import pytest

from immure import Sandbox, SetupFailed
from immure.runtimes.guest.connections import connect_within, socket_of

pytestmark = pytest.mark.rootless
ECHO = """
import socket
listening = socket.socket(socket.AF_UNIX)
listening.bind("/tmp/echo")
listening.listen()
print("listens", flush=True)
connected, _ = listening.accept()
connected.sendall(connected.recv(100).upper())
"""


def test_who_listens_in_a_box_is_reached() -> None:
    with Sandbox(workdir="/tmp") as box:
        with box.start(["/usr/bin/python3", "-c", ECHO]) as server:
            assert server.stdout.readline() == b"listens\n"
            with connect_within(box._box, box._launch, "/tmp/echo", box._launch.user) as stream:
                stream.settimeout(10)
                stream.sendall(b"hello")
                assert stream.recv(100) == b"HELLO"
            assert server.wait(10).ok
        assert box.exec(["/bin/true"]).ok


def test_where_nobody_listens() -> None:
    with Sandbox(workdir="/tmp") as box:
        with pytest.raises(SetupFailed, match="/tmp/none") as caught:
            connect_within(box._box, box._launch, "/tmp/none", box._launch.user)
        assert caught.value.errno == errno.ENOENT
        assert caught.value.step == "connect"
        box.files.write("/tmp/file", b"")
        with pytest.raises(SetupFailed) as caught:
            connect_within(box._box, box._launch, "/tmp/file", box._launch.user)
        assert caught.value.errno == errno.ECONNREFUSED
        assert box.exec(["/bin/true"]).ok


def test_what_came_is_looked_at() -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(SetupFailed, match="no socket"):
        socket_of([null])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(null)
