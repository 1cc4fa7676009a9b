"""What a program said about itself: the last line of its output, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """`outcome` is succeeded, denied or indeterminate; `errno` an error's name or a word of `WITHOUT_ERROR`."""

    attempt: str
    outcome: str
    errno: str
    detail: str

    def __str__(self) -> str:
        return f"{self.outcome} {self.errno} ({self.detail})"


def parsed(name: str, stdout: str, otherwise: str) -> Report:
    """The report, or an indeterminate one that tells what happened instead."""
    try:
        report = Report(**json.loads(stdout.rstrip().rpartition("\n")[2]))
    except (ValueError, TypeError):
        return Report(name, "indeterminate", "", f"no report: {otherwise}")
    assert report.attempt == name
    return report
