"""`immure exec` of a command without options to speak of: nothing is parsed, and no model is made.

Standard library only, and little of that: this is on the hot path.
"""

from __future__ import annotations

import os
from time import perf_counter_ns

from immure.cli.execute import Outcome, Signals, execute_into, watching
from immure.engine.keeper.joined import Joined, join
from immure.engine.session import Measured
from immure.engine.verdict import Verdict, judge_end
from immure.errors import ImmureError
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.request import Request
from immure.runtimes.process.stem import ask

TYPE_CHECKING = False
if TYPE_CHECKING:
    # What only annotations need has no place on the hot path.
    from collections.abc import Callable

    from immure.engine.result import Result
    from immure.runtimes.base import Commands


class KeptOutcome(Outcome):
    """A command in a kept box."""

    def __init__(self, joined: Joined, request: Request) -> None:
        super().__init__(request)
        self._joined = joined
        self._attendance: Attendance | None = None
        self._oom = self._exec_us = 0

    def carry_out(
        self, make_stdio: Callable[[Commands], Stdio], signals: Signals, listening: Callable[[int], None] | None
    ) -> Verdict:
        """As for a box of its own."""
        began, request, stem = perf_counter_ns(), self.request, self._joined.stem
        stdio = make_stdio(stem)
        try:
            owner = self._joined.measured.host_ids(request.uid, request.gid)
            # Once it runs, it may be heard of, and sent a signal, before anything else happens here.
            signals.attend()
            asker = ask(stem, request, stdio, owner, hold=True, terminal=stdio.terminal)
            try:
                self._attendance = Attendance(stem, asker, stdio, request, wakeup=signals.wakeup)
                self._attendance.see_through(stdio, watching(request))
            finally:
                # It ends the command.
                asker.close()
        finally:
            stdio.done()
        self._exec_us = (perf_counter_ns() - began) // 1000
        self._oom = self._joined.oom_kills()
        return judge_end(request, self._attendance, None, oom=self._oom)

    @property
    def measured(self) -> Measured | None:
        """What was measured of the box before its first command."""
        return self._joined.measured

    def result(self, name: str) -> Result:
        """The result of a command that has run."""
        from immure.engine.command import make_result
        from immure.engine.result import with_denials

        assert self._attendance is not None
        times_us = {"exec": self._exec_us}
        box = self._joined
        result = make_result(
            self.request, self._attendance, None, box.measured, times_us, box.name, box.id, oom=self._oom
        )
        return with_denials(result, self.denials)


def exec_plain(arguments: list[str]) -> int | None:
    """Runs it, or gives None where there is more to do than that: other options, or something to complain of."""
    if "--" not in arguments:
        return None
    end = arguments.index("--")
    options, command = arguments[:end], arguments[end + 1 :]
    name = options.pop() if options else ""
    if not command or not name or name[0] == "-" or not {*options} <= {"-i", "-q"}:
        return None
    try:
        joined = join(name)
    except ImmureError:
        return None
    request = Request(joined.stem.launch, [os.fsencode(one) for one in command])
    return execute_into(KeptOutcome(joined, request), interactive="-i" in options, quiet="-q" in options)
