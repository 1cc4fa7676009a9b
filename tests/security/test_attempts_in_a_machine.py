"""The same attempts in a virtual machine: those that need nothing of the host to be set up. What succeeds outside is
shown by `test_attempts.py`.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from immure import Sandbox
from machine.machines import needs_qemu
from security.attempt import ATTEMPTS, Attempt
from security.attempts import SUBJECTS
from security.machine_image import PYTHON, make_python_image
from security.report import Report
from vmm_programs import guest_kernel

pytestmark = pytest.mark.rootless

for subject in SUBJECTS:
    importlib.import_module(f"security.attempts.{subject}")

CHOSEN = {name: one for name, one in ATTEMPTS.items() if not one.scenes}
#: A pattern of attempts, and errors beside those that each declares: a kernel may not have what they are after.
OTHER_ERRORS = {
    "network.firewall_rules": "EPROTONOSUPPORT",
    "proc.write_switch-*": "ENOENT",
    "proc.write_interrupt_affinity": "ENOENT",
}
#: What is the machine's own: its root is nobody on the host.
ITS_OWN = {
    "identity.maps_root_of_the_host-user": "[[0, 0, 4294967295]]",
    "identity.maps_root_of_the_host-group": "[[0, 0, 4294967295]]",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_qemu()
    return make_python_image(tmp_path_factory.mktemp("image") / "root")


@pytest.fixture(scope="module")
def reports(folder: Path) -> Iterator[dict[str, Report]]:
    """What became of each. A program's start takes an emulated processor as long as several attempts."""
    os.environ["IMMURE_KERNEL"] = str(guest_kernel())
    asked = "".join(json.dumps((name, json.dumps(dict(one.arguments)))) + "\n" for name, one in CHOSEN.items())
    try:
        with Sandbox(
            runtime="qemu", level="L3", image=str(folder), workdir="/tmp", protections={"landlock": "required"}
        ) as box:
            assert box.evidence().boundary == "vm"
            said = box.exec([PYTHON, "-I", "-B", "/attempts/security/inside.py", "--each"], stdin=asked.encode())
    finally:
        del os.environ["IMMURE_KERNEL"]
    lines = [line for line in said.stdout.text().splitlines() if line.startswith('{"attempt"')]
    found = [Report(**json.loads(line)) for line in lines]
    assert found, f"{said.exit}, {said.stderr.text()}"
    yield {one.attempt: one for one in found}


@pytest.mark.parametrize("name", CHOSEN)
def test_denied_in_a_machine(
    name: str, reports: dict[str, Report], record_property: Callable[[str, object], None]
) -> None:
    attempt, report = CHOSEN[name], reports[name]
    if report.outcome == "succeeded" and name in ITS_OWN:
        assert ITS_OWN[name] == report.detail
        record_property("denied", (name, "ITS_OWN", report.detail))
        return
    assert report.outcome == "denied", str(report)
    errors = attempt.denied | other_errors(attempt)
    assert report.errno in errors, f"denied by {report}, not by one of {sorted(errors)}"
    record_property("denied", (name, report.errno, report.detail))


def other_errors(attempt: Attempt) -> frozenset[str]:
    return frozenset(
        word for pattern, words in OTHER_ERRORS.items() if fnmatchcase(attempt.name, pattern) for word in words.split()
    )


def test_every_answer_is_of_some_attempt() -> None:
    assert all(any(fnmatchcase(name, pattern) for name in ATTEMPTS) for pattern in (*OTHER_ERRORS, *ITS_OWN))
