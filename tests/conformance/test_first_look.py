"""A little of each kind of box, for every user: test_verbs.py and test_files.py are divided between the plain ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from machine.machines import make_image

from .faces import EVERY, blocking, is_machine

# The first machine of Firecracker's boots, which takes its time where KVM interprets a guest's kernel.
pytestmark = [pytest.mark.rootless, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image(tmp_path_factory.mktemp("image") / "root")


@pytest.mark.parametrize("face", EVERY)
def test_a_command_runs_and_files_go_both_ways(face: str, image: Path) -> None:
    small: dict[str, Any] = {"image": image, "workdir": "/"} if is_machine(face) else {}
    with blocking(face, **small) as box:
        box.files.write("/tmp/in", b"of the host")
        result = box.exec(["/bin/sh", "-c", "cat /tmp/in; id -u > /tmp/out; exit 3"])
        assert (result.exit.code, bytes(result.stdout)) == (3, b"of the host")
        assert box.files.read("/tmp/out") == b"1000\n"
