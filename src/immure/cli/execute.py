"""Carries out `immure run`: this process's standard descriptors, its signals, and the exit status.

Standard library only, and little of that: this is on the hot path. `_signal` is the built-in module below `signal`.
"""

from __future__ import annotations

import os
import stat
import sys

from immure.engine.session import Measured, Once
from immure.engine.spawners import spawner_for
from immure.engine.verdict import Verdict, judge_end
from immure.errors import ExecFailed, ImmureError
from immure.plan.launch import Launch
from immure.runtimes.process.attend import Attendance, Stdio
from immure.runtimes.process.course import Sink
from immure.runtimes.process.request import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable

    from immure.engine.result import Denial, Result
    from immure.runtimes.base import Box, Commands
else:
    import _signal

REFUSED = 125
_FORWARDED = (1, 2, 3, 10, 12, 14, 15, 18)
_SIGWINCH = 28
_NULL_DEVICE = (1, 3)


class Interrupted(BaseException):
    """A signal came before there was a command to pass it to."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Outcome:
    """A command in a box of its own, and what there is to report of it."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.once = Once()
        self.verdict: Verdict | None = None
        self.error: ImmureError | None = None
        #: As of `Once.run`.
        self.beside: Callable[[Box], Callable[[], None]] | None = None
        self.denials: tuple[Denial, ...] = ()

    def carry_out(
        self, make_stdio: Callable[[Commands], Stdio], signals: Signals, listening: Callable[[int], None] | None
    ) -> Verdict:
        """Runs it to its end. Raises ImmureError."""
        request, once = self.request, self.once
        once.run(
            spawner_for(request.launch),
            request,
            make_stdio,
            wakeup=signals.wakeup,
            attending=signals.attend,
            listening=listening,
            watched=watching(request),
            beside=self.beside,
        )
        assert once.attendance is not None
        return judge_end(request, once.attendance, once.box.ended if once.box is not None else None)

    @property
    def measured(self) -> Measured | None:
        """What was measured of the box, where it came to that."""
        return self.once.measured

    def result(self, name: str) -> Result:
        """The result of a command that has run."""
        from secrets import token_hex

        from immure.engine.local import result_of_once
        from immure.engine.result import with_denials

        result = result_of_once(self.request, self.once, name=name, box=token_hex(6), planned_us=0)
        return with_denials(result, self.denials)


def execute(launch: Launch, command: list[str], *, interactive: bool, quiet: bool) -> int:
    """Runs the command and gives the exit status: its own, 128+N, 124, 125, 126, 127 or 137."""
    outcome = Outcome(Request(launch, [os.fsencode(one) for one in command]))
    return execute_into(outcome, interactive=interactive, quiet=quiet)


def execute_into(
    outcome: Outcome,
    *,
    interactive: bool,
    quiet: bool,
    stdout: int = 1,
    listening: Callable[[int], None] | None = None,
    make_stdio: Callable[[Commands], Stdio] | None = None,
) -> int:
    """The same, with everything that is known kept in `outcome`, and the command's output to descriptor `stdout`."""
    signals = Signals(resized=make_stdio is not None)
    request = outcome.request
    limited = request.output_bytes is not None

    def ours(_: Commands) -> Stdio:
        return pass_on(interactive=interactive, limited=limited, stdout=stdout)

    try:
        verdict = outcome.verdict = outcome.carry_out(make_stdio or ours, signals, listening)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except ExecFailed as error:
        outcome.error = error
        complain(error)
        return error.exit_status
    except ImmureError as error:
        outcome.error = error
        complain(error)
        return REFUSED
    if not quiet:
        _remark(verdict, request)
    return verdict.exit_status()


def watching(request: Request) -> Callable[[Attendance, float | None], None] | None:
    """What sees to a command's end where its attendant is held up, if it has a time."""
    if request.timeout_s is None:
        # Threads have no place on the hot path.
        return None
    from immure.engine.deadlines import watch_over

    return watch_over


def complain(error: ImmureError) -> None:
    """An error as the command line prints it. Text of a box is escaped before a terminal sees it."""
    lines = [f"immure: {error.message}"]
    lines += [f"  {name}: {text}" for name, text in (("needed", error.need), ("have", error.have)) if text]
    if error.hint:
        lines.append(f"  to do: {error.hint}")
    say("".join(printable(line) + "\n" for line in lines))


def say(text: str) -> None:
    """Writes to standard error, if the caller has one."""
    try:
        sys.stderr.write(text)
    except (AttributeError, OSError):
        pass


def printable(text: str) -> str:
    """Text without control characters, which a terminal would obey."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _remark(verdict: Verdict, request: Request) -> None:
    remarks = {
        "timeout": f"ended after {request.timeout_s} s (timeout_s)",
        "oom": "ended by the kernel: out of memory (memory_mib)",
        "output": f"ended: more than {request.output_bytes} bytes of output (output_mib)",
    }
    if verdict.kind in remarks:
        say(f"immure: {remarks[verdict.kind]}\n")


class Signals:
    """Signals to this process go on to the command; before there is one they end the box."""

    def __init__(self, *, resized: bool = False) -> None:
        self.wakeup, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._attending = False
        for number in (*_FORWARDED, _SIGWINCH) if resized else _FORWARDED:
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                _signal.signal(number, self._handle)

    def attend(self) -> None:
        """From now on signals arrive on `wakeup`."""
        self._attending = True

    def _handle(self, number: int, _frame: object) -> None:
        if not self._attending:
            if number == _SIGWINCH:
                return
            raise Interrupted(number)
        try:
            os.write(self._writer, bytes([number]))
        except BlockingIOError:
            # So many are waiting that one more changes nothing.
            pass


def pass_on(*, interactive: bool, limited: bool, stdout: int = 1) -> Stdio:
    """This process's own descriptors where the box may have them as they are, else pipes that we pump.

    Pipes, the null device, and regular files opened in the matching mode are given; terminals, and any output under
    a limit, are pumped. A folder, socket or other device never enters: a folder on stdin would be a way out.
    """
    close: list[int] = []
    sinks: list[Sink] = []
    feed: tuple[int, int] | None = None
    first: int | None = None
    if not interactive:
        pass
    elif _may_enter(0, os.O_RDONLY):
        first = 0
    else:
        first, writer = os.pipe2(os.O_CLOEXEC)
        close.append(first)
        feed = (0, writer)
    outs: list[int] = []
    for number in (stdout, 2):
        if not limited and _may_enter(number, os.O_WRONLY):
            outs.append(number)
        else:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            close.append(writer)
            sinks.append(Sink(reader, number))
            outs.append(writer)
    stdio = Stdio((first, outs[0], outs[1]), close, sinks)
    stdio.feed = feed
    return stdio


def _may_enter(fd: int, mode: int) -> bool:
    import fcntl

    try:
        found = os.fstat(fd)
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError:
        return False
    if flags & os.O_ACCMODE != mode:
        return stat.S_ISCHR(found.st_mode) and _is_null(found)
    return stat.S_ISFIFO(found.st_mode) or stat.S_ISREG(found.st_mode) or _is_null(found)


def _is_null(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and (os.major(found.st_rdev), os.minor(found.st_rdev)) == _NULL_DEVICE
