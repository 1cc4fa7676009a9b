"""Which user a test needs, and which skips a run may have.

A test marked `root` is skipped where this is another user. A reason for a skip begins with the word that says what
it needs: `needs uid 0` and `root:` another user, `rootless:` a plain one, `host:` a kernel or machine that no package
brings, IMMURE_CORPUS the foreign files. With IMMURE_EXPECT_ALL=1, as in CI, a skip for anything else, such as a program
that could have been installed, makes the run fail.
"""

from __future__ import annotations

import faulthandler
import os

import pytest

ELSEWHERE = ("needs uid 0", "root:", "rootless:", "host:", "IMMURE_CORPUS")
#: An interpreter that takes longer to end says where it hangs.
END_S = 60


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("IMMURE_EXPECT_ALL") == "1":
        config.pluginmanager.register(ExpectAll(), "immure-expect-all")


@pytest.fixture(autouse=True, scope="session")
def pipes_ahead() -> None:
    """Those that are made ahead are there from now on: whoever counts descriptors finds as many before as after."""
    from immure.engine.pipes import make_ahead

    make_ahead()


def pytest_unconfigure() -> None:
    # No timeout of a test covers what comes after them all.
    faulthandler.dump_traceback_later(END_S, exit=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root") is not None:
            item.add_marker(pytest.mark.skip(reason="needs uid 0"))


class ExpectAll:
    """Collects the skips that should not have been, and makes the run fail with them."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.missing:
            terminalreporter.section("skipped, but IMMURE_EXPECT_ALL=1", red=True)
            for line in self.missing:
                terminalreporter.write_line(f"FAILED {line}", red=True)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if not reason.startswith(ELSEWHERE):
                self.missing.append(f"{report.nodeid}: {reason}")
