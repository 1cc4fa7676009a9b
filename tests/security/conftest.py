"""Ends the run with what denied the attempts: counts, and each of them with -v."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    denials = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "denied"
    ]
    if not denials:
        return
    terminalreporter.section("attempts denied in the box")
    if terminalreporter.verbosity > 0:
        for attempt, error, detail in sorted(denials):
            terminalreporter.write_line(f"{error:12} {attempt:50} {detail}")
    counts = Counter(error for _, error, _ in denials)
    terminalreporter.write_line(", ".join(f"{error} {count}" for error, count in counts.most_common()))
