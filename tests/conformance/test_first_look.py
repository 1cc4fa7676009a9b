"""A little of each kind of box, for every user: test_verbs.py and test_files.py are divided between the plain ones."""

from __future__ import annotations

import pytest

from .faces import EVERY, blocking

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]


@pytest.mark.parametrize("face", EVERY)
def test_a_command_runs_and_files_go_both_ways(face: str) -> None:
    with blocking(face) as box:
        box.files.write("/tmp/in", b"of the host")
        result = box.exec(["/bin/sh", "-c", "cat /tmp/in; id -u > /tmp/out; exit 3"])
        assert (result.exit.code, bytes(result.stdout)) == (3, b"of the host")
        assert box.files.read("/tmp/out") == b"1000\n"
