"""The same attempts in a virtual machine: those that need nothing of the host to be set up. What succeeds outside is
shown by `test_attempts.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from immure import Sandbox
from machine.machines import needs_qemu
from security.machine_attempts import CHOSEN, ITS_OWN, OTHER_ERRORS, assert_denied, make_attempts
from security.machine_image import make_python_image
from security.report import Report
from vmm_programs import guest_kernel

pytestmark = pytest.mark.rootless


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_qemu()
    return make_python_image(tmp_path_factory.mktemp("image") / "root")


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, Report]:
    os.environ["IMMURE_KERNEL"] = str(guest_kernel())
    try:
        with Sandbox(
            runtime="qemu", level="L3", image=str(folder), workdir="/tmp", protections={"landlock": "required"}
        ) as box:
            assert box.evidence().boundary == "vm"
            return make_attempts(box, "--each", 300)
    finally:
        del os.environ["IMMURE_KERNEL"]


@pytest.mark.parametrize("name", CHOSEN)
def test_denied_in_a_machine(
    name: str, reports: dict[str, Report], record_property: Callable[[str, object], None]
) -> None:
    assert_denied(name, reports[name], record_property)


def test_every_answer_is_of_some_attempt() -> None:
    assert all(any(fnmatchcase(name, pattern) for name in CHOSEN) for pattern in (*OTHER_ERRORS, *ITS_OWN))
