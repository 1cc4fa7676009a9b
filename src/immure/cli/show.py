"""What `immure run` prints of plans and results."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

import msgspec

from immure.cli.execute import Outcome, complain, printable
from immure.engine.local import make_result
from immure.errors import ExecFailed, ImmureError, SpecError
from immure.plan.compile import Plan


def write_dry_run(plan: Plan) -> None:
    """The operations and the clause report, for people."""
    lines = [*plan.describe(), "", "clause report:"]
    for clause in plan.report:
        why = f" ({clause.why})" if clause.why else ""
        lines.append(f"  {clause.clause:24} {clause.wanted:20} {clause.got}: {clause.by}{why}")
    sys.stdout.write("".join(printable(line) + "\n" for line in lines))


def write_result(target: str, outcome: Outcome | None, error: ImmureError | None, name: str) -> None:
    """The result as JSON, to a path or an inherited descriptor. A target that can't be written is complained of."""
    document = _document(outcome, error, name)
    content = msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"
    try:
        if target.startswith("fd:"):
            os.write(int(target[3:]), content)
        else:
            Path(target).write_bytes(content)
    except (OSError, ValueError) as problem:
        complain(SpecError(f"the result can't be written: {problem}", path="--result", have=target))


def _document(outcome: Outcome | None, error: ImmureError | None, name: str) -> dict[str, object]:
    box = secrets.token_hex(6)
    if outcome is not None and outcome.verdict is not None:
        return make_result(outcome.request, outcome.once, name=name, box=box, planned_us=0).to_dict()
    code = error.exit_status if isinstance(error, ExecFailed) else None
    measured = outcome.once.measured if outcome is not None else None
    launch = outcome.request.launch if outcome is not None else None
    return {
        "schema": "immure.result/v1",
        "id": box,
        "name": name,
        "argv": [os.fsdecode(one) for one in outcome.request.argv] if outcome is not None else [],
        "exit": {"kind": "refused", "code": code, "signal": None},
        "level": {
            "asked": launch.level if launch is not None else None,
            "awarded": measured.awarded if measured is not None else None,
        },
        "error": error.to_dict() if error is not None else None,
    }
