"""What `immure run` prints of plans and results."""

from __future__ import annotations

import fcntl
import os
import secrets
import sys

import msgspec

from immure.cli.execute import Outcome, complain, printable
from immure.engine.result import refusal
from immure.errors import ImmureError, SpecError
from immure.plan.model import Plan


def write_dry_run(plan: Plan) -> None:
    """The operations and the clause report, for people."""
    lines = [*plan.describe(), "", "clause report:"]
    for clause in plan.report:
        why = f" ({clause.why})" if clause.why else ""
        lines.append(f"  {clause.clause:24} {clause.wanted:20} {clause.got}: {clause.by}{why}")
    sys.stdout.write("".join(printable(line) + "\n" for line in lines))


def open_target(target: str) -> int:
    """A descriptor for the result, before anything is run. Raises SpecError for what can't be written."""
    try:
        if not target.startswith("fd:"):
            return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        number = int(target[3:])
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError("opened for reading alone")
    except (OSError, ValueError, OverflowError) as problem:
        raise SpecError(
            "the result can't be written", path="--result", need="a path or fd:N", have=f"{target}: {problem}"
        ) from problem
    return number


def write_result(
    target: int, outcome: Outcome | None, error: ImmureError | None, name: str, command: list[str]
) -> None:
    """The result as JSON. A failure to write it is complained of; the command has run all the same."""
    content = msgspec.json.format(msgspec.json.encode(_document(outcome, error, name, command)), indent=2) + b"\n"
    try:
        while content:
            content = content[os.write(target, content) :]
    except OSError as problem:
        complain(SpecError(f"the result can't be written: {problem.strerror}", path="--result"))


def _document(outcome: Outcome | None, error: ImmureError | None, name: str, command: list[str]) -> dict[str, object]:
    if outcome is not None and outcome.verdict is not None:
        return outcome.result(name).to_dict()
    launch = outcome.request.launch if outcome is not None else None
    measured = outcome.measured if outcome is not None else None
    return refusal(error, launch, measured, name=name, box=secrets.token_hex(6), argv=command)
