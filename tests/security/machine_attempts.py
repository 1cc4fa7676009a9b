"""The attempts that need nothing of the host to be set up, made in a virtual machine, whichever carries it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from fnmatch import fnmatchcase

from immure import Sandbox
from security.attempt import ATTEMPTS, Attempt
from security.attempts import SUBJECTS
from security.machine_image import PYTHON
from security.report import Report

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


def make_attempts(box: Sandbox, how: str, timeout_s: float) -> dict[str, Report]:
    """What became of each, by one program: a start takes an emulated processor as long as several attempts.

    `how` is `--each` for a process of its own for each of them, or `--together` where a fork takes seconds.
    """
    asked = "".join(json.dumps((name, json.dumps(dict(one.arguments)))) + "\n" for name, one in CHOSEN.items())
    argv = [PYTHON, "-I", "-B", "/attempts/security/inside.py", how]
    said = box.exec(argv, stdin=asked.encode(), timeout_s=timeout_s)
    lines = [line for line in said.stdout.text().splitlines() if line.startswith('{"attempt"')]
    found = [Report(**json.loads(line)) for line in lines]
    assert found, f"{said.exit}, {said.stderr.text()}"
    return {one.attempt: one for one in found}


def assert_denied(name: str, report: Report, record_property: Callable[[str, object], None]) -> None:
    """That it was denied as it is to be, or saw no more than what is the machine's own."""
    if report.outcome == "succeeded" and name in ITS_OWN:
        assert ITS_OWN[name] == report.detail
        record_property("denied", (name, "ITS_OWN", report.detail))
        return
    assert report.outcome == "denied", str(report)
    errors = CHOSEN[name].denied | _other_errors(CHOSEN[name])
    assert report.errno in errors, f"denied by {report}, not by one of {sorted(errors)}"
    record_property("denied", (name, report.errno, report.detail))


def _other_errors(attempt: Attempt) -> frozenset[str]:
    return frozenset(
        word for pattern, words in OTHER_ERRORS.items() if fnmatchcase(attempt.name, pattern) for word in words.split()
    )
