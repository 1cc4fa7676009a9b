"""Which user a test needs, and which skips a run may have.

A test marked `root` is skipped where this is another user. A reason for a skip begins with the word that says what
it needs: `needs uid 0` and `root:` another user, `rootless:` a plain one, `host:` a kernel or machine that no package
brings, IMMURE_CORPUS the foreign files. With IMMURE_EXPECT_ALL=1, as in CI, a skip for anything else, such as a program
that could have been installed, makes the run fail.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Generator

import pytest

ELSEWHERE = ("needs uid 0", "root:", "rootless:", "host:", "IMMURE_CORPUS")
#: An interpreter that takes longer to end says where it hangs.
END_S = 60
#: Whoever is told that his time is over has so long to clean up.
CLEANING_S = 240
#: And at first this, where nothing is said of it.
USUAL_S = 300
_LOOK_S = 5


class Watch:
    """Ends this process at a moment, and says where its threads were. A test's own timer is spent by then, and pytest
    takes back that of the fault handler when a test fails.
    """

    def __init__(self, stderr: int) -> None:
        self.until_s: float | None = None
        self._stderr = stderr
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    def _look(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            if self.until_s is not None and time.monotonic() > self.until_s:
                faulthandler.dump_traceback(self._stderr)
                os._exit(1)


_WATCH = pytest.StashKey[Watch]()


def pytest_configure(config: pytest.Config) -> None:
    # Before it is captured.
    config.stash[_WATCH] = Watch(os.dup(2))
    if os.environ.get("IMMURE_EXPECT_ALL") == "1":
        config.pluginmanager.register(ExpectAll(), "immure-expect-all")


@pytest.fixture(autouse=True, scope="session")
def pipes_ahead() -> None:
    """Those that are made ahead are there from now on: whoever counts descriptors finds as many before as after."""
    from immure.runtimes.process.pipes import make_ahead

    make_ahead()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that hangs when its time is over, too, ends all of the run, and says where."""
    marker = item.get_closest_marker("timeout")
    limit_s = float(marker.args[0] if marker is not None else item.config.getini("timeout") or USUAL_S)
    watch = item.config.stash[_WATCH]
    watch.until_s = time.monotonic() + limit_s + CLEANING_S
    try:
        return (yield)
    finally:
        watch.until_s = None


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
