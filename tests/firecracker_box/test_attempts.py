"""The attempts within a machine of Firecracker's. What succeeds outside is shown by `security/test_attempts.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from immure import Sandbox
from security.machine_attempts import CHOSEN, assert_denied, make_attempts
from security.machine_image import make_python_image
from security.report import Report

# Where KVM interprets a guest's kernel, Python alone takes half a minute to start.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def reports(settings: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    folder = make_python_image(tmp_path_factory.mktemp("image") / "root")
    spec = {"image": str(folder), "workdir": "/tmp", "protections": {"landlock": "required"}}
    with Sandbox(runtime="firecracker", level="L3", **spec) as box:
        assert box.evidence().boundary == "vm"
        return make_attempts(box, "--together", 500)


@pytest.mark.parametrize("name", CHOSEN)
def test_denied_in_a_machine_of_firecracker_s(
    name: str, reports: dict[str, Report], record_property: Callable[[str, object], None]
) -> None:
    assert_denied(name, reports[name], record_property)
