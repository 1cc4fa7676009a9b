"""`immure trace`: what a Sentry sees of a kept box, or of a command in a box of its own."""

from __future__ import annotations

import os
import signal
import threading
from argparse import Namespace
from collections.abc import Callable

import msgspec

from immure.cli.execute import Outcome, complain, printable, say
from immure.cli.fast import Dependencies
from immure.cli.learn import Target
from immure.cli.parser import make_parser
from immure.cli.run import attend, spec_of
from immure.cli.trace_text import is_shown, json_line, summary, text_line
from immure.engine.keeper.kept import KeptSandbox
from immure.engine.prepare import prepare
from immure.engine.tracing import Wanted, check_traceable, open_trace
from immure.errors import ImmureError, SpecError
from immure.runtimes.base import Box
from immure.runtimes.gvisor.trace import DEFAULT_CONTEXT, MAX_BYTES, MAX_EVENTS, Trace, TraceEvent
from immure.runtimes.gvisor.trace.events import own_event
from immure.runtimes.process.request import Request

#: Of either form; the others make a box.
_BOTH = {"verb", "version", "box", "point", "context", "optional", "denied", "json", "max", "output", "quiet"}
_INTERRUPTED, _NOBODY_READS = 130, 141
_AT_ONCE = 32 * 1024


def trace(options: Namespace, command: list[str]) -> int:
    """Carries it out and gives the exit status. Raises ImmureError before there is anything to show."""
    if options.max is not None and options.max < 1:
        raise SpecError("less than one event", path="-n", need="1 or more", have=str(options.max))
    if options.box is None:
        return _trace_command(options, command)
    if command:
        raise SpecError("a box and a command", path="COMMAND", need="BOX, or -- and a command", have=options.box)
    return _trace_box(options)


def _wanted(options: Namespace) -> Wanted:
    return Wanted(
        tuple(options.point) or None,
        (*DEFAULT_CONTEXT, *options.context) if options.context else None,
        tuple(options.optional),
    )


def _trace_box(options: Namespace) -> int:
    defaults = vars(make_parser().parse_args(["trace", options.box]))
    for name, value in vars(options).items():
        if name not in _BOTH and value != defaults[name]:
            raise SpecError("the box is made already", path=f"--{name}", need="a command after --, in a box of its own")
    shown = Shown(options, 1)
    box = KeptSandbox.attach(options.box)
    try:
        with box.open_trace(_wanted(options)) as events:
            interrupt = _Interrupt(events)
            shown.follow(events)
        shown.end(events)
    except BrokenPipeError:
        return _NOBODY_READS
    finally:
        box.close()
        shown.close()
    return _INTERRUPTED if interrupt.came else 0


class _Interrupt:
    """Ctrl-C, once: what has come by then is shown yet."""

    def __init__(self, trace: Trace) -> None:
        self.came = False
        self._trace = trace
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        self.came = True
        self._trace.finish()


def _trace_command(options: Namespace, command: list[str]) -> int:
    if options.tty and options.output is None:
        raise SpecError("events would be in what the terminal shows", path="-t", need="-o FILE")
    spec, base, name = spec_of(options, Dependencies())
    command = command or list(spec.command)
    if not command:
        raise SpecError(
            "neither a box nor a command", path="COMMAND", need="BOX, or a command after -- (or `command` in the file)"
        )
    launch = prepare(spec, base=base, hostname=name)
    check_traceable(launch.runtime, launch.level)
    outcome = Outcome(Request(launch, [os.fsencode(one) for one in command]))
    beside = _Beside(Shown(options, 2), _wanted(options), launch.level)
    outcome.beside = beside.begin
    try:
        return attend(outcome, options)
    finally:
        beside.shown.close()


class Shown:
    """Events as lines on a descriptor, or in a file."""

    def __init__(self, options: Namespace, fd: int) -> None:
        self._file = Target(options.output, "-o") if options.output is not None else None
        self._fd = fd
        self._denied, self._quiet = options.denied, options.quiet
        self._line = json_line if options.json else text_line
        self._json, self._left = options.json, options.max
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0

    def follow(self, trace: Trace) -> None:
        """Shows them until there are no more, or as many as are wanted."""
        while (event := trace.read(0) or self._next(trace)) is not None:
            if not is_shown(event, denied=self._denied):
                continue
            self._put(self._line(event))
            if self._left is not None:
                self._left -= 1
                if not self._left:
                    break
        self._write()

    def _next(self, trace: Trace) -> TraceEvent | None:
        self._write()
        return trace.read()

    def end(self, trace: Trace) -> None:
        """Says how much there was, and what is missing."""
        counts = trace.counts
        if self._json:
            self._put(json_line(own_event("trace/end", **msgspec.to_builtins(counts))))
            self._write()
        if not self._quiet:
            say(f"immure: {printable(summary(counts))}\n")

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def _put(self, line: str) -> None:
        self._waiting.append(line.encode() + b"\n")
        self._waiting_bytes += len(self._waiting[-1])
        if self._waiting_bytes > _AT_ONCE:
            self._write()

    def _write(self) -> None:
        content, self._waiting, self._waiting_bytes = b"".join(self._waiting), [], 0
        if self._file is not None:
            self._file.write(content)
            return
        view = memoryview(content)
        while view:
            view = view[os.write(self._fd, view) :]


class _Beside:
    """The trace of a command: begun before it, and ended after it."""

    def __init__(self, shown: Shown, wanted: Wanted, level: str) -> None:
        self.shown = shown
        self._wanted, self._level = wanted, level
        self._failure: ImmureError | OSError | None = None

    def begin(self, box: Box) -> Callable[[], None]:
        """Traces the box from now on, beside what else is done; what it gives is to be called at the end."""
        trace = open_trace(box, self._level, self._wanted, MAX_EVENTS, MAX_BYTES)
        thread = threading.Thread(target=self._follow, args=(trace,), daemon=True)
        thread.start()

        def end() -> None:
            trace.finish()
            thread.join()
            trace.close()
            self._end(trace)

        return end

    def _follow(self, trace: Trace) -> None:
        try:
            self.shown.follow(trace)
        except (ImmureError, OSError) as error:
            self._failure = error
        # The command goes on, and nobody asks for more.
        trace.close()

    def _end(self, trace: Trace) -> None:
        try:
            if self._failure is not None:
                raise self._failure
            self.shown.end(trace)
        except ImmureError as error:
            complain(error)
        except OSError as error:
            complain(SpecError(f"events can't be written: {error.strerror}", path="-o"))
