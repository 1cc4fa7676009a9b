"""`immure policy learn`: runs a command in a box, and gives the smallest profile for what it did."""

from __future__ import annotations

import os
import signal
import stat
import sys
from argparse import Namespace
from io import FileIO
from typing import Any

import msgspec

from immure.cli.execute import Outcome, execute_into, printable, say
from immure.cli.fast import Dependencies
from immure.cli.run import spec_of
from immure.engine.prepare import host_facts, prepare, profile_of
from immure.errors import SpecError
from immure.plan.launch import Launch
from immure.policy.seccomp import (
    TRACE_SCHEMA,
    Observed,
    Profile,
    Recorder,
    TraceCall,
    TraceHeader,
    learned_profile,
    name_of,
    refusal,
)
from immure.policy.seccomp.formats import to_oci
from immure.runtimes.process.listener import Judge, Listener
from immure.runtimes.process.request import Request


class Target:
    """A file to write, opened before anything is run. Raises SpecError, here and in `write`.

    What was in it stays until there is something to write.
    """

    def __init__(self, path: str, option: str) -> None:
        self._path, self._option = path, option
        self._new = not os.path.lexists(path)
        self._untouched = True
        try:
            # Unbuffered: what can't be written is known at once, and closing can't fail.
            self._file = FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666), "wb")
        except OSError as error:
            raise self._fault(error) from error

    def write(self, content: bytes) -> None:
        """All of it."""
        try:
            if self._untouched:
                self._untouched = False
                if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                    self._file.truncate(0)
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Closes it; one that was made for nothing is gone again."""
        self._file.close()
        if self._new and self._untouched:
            os.unlink(self._path)  # noqa: PTH108

    def _fault(self, error: OSError) -> SpecError:
        return SpecError(
            f"{self._path} can't be written: {error.strerror}",
            path=self._option,
            need="a file that can be written, and room for it",
        )


class Learning:
    """One command's calls: recorded, answered, and written to a trace where one is wanted."""

    def __init__(self, launch: Launch, trace: Target | None) -> None:
        assert launch.decides is not None
        arch = host_facts().arch
        self.recorder = Recorder(launch.decides, arch=arch)
        self._listener: Listener | None = None
        self._trace = trace
        if trace is not None:
            trace.write(_line(TraceHeader(TRACE_SCHEMA, arch)))

    def listen(self, fd: int) -> None:
        """Answers the calls that come from this listener."""
        self._listener = Listener(fd, self._judge if self._trace is None else self._traced(self._trace))

    def close(self) -> None:
        """Ends it. Raises what went wrong with answering."""
        if self._listener is not None:
            self._listener.close()

    def _judge(self, number: int, audit: int, args: tuple[int, ...]) -> int | None:
        return refusal(self.recorder.judge(number, audit, args).value)

    def _traced(self, trace: Target) -> Judge:
        def judge(number: int, audit: int, args: tuple[int, ...]) -> int | None:
            one = self.recorder.judge(number, audit, args)
            trace.write(_line(TraceCall(one.abi.name, name_of(one.abi, number), number, args, one.answer)))
            return refusal(one.value)

        return judge


def _line(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def learn(options: Namespace, command: list[str]) -> int:
    """Carries it out and gives the exit status, as `immure run` does. Raises ImmureError before anything is run."""
    spec, base, name = spec_of(options, Dependencies())
    command = command or list(spec.command)
    if not command:
        raise SpecError("there is no command", path="COMMAND", need="one after --, or `command` in the file")
    if options.values < 0:
        raise SpecError("less than nothing", path="--values", need="0 or more", have=str(options.values))
    profile = profile_of(spec, base=base)
    launch = prepare(spec, base=base, hostname=name, learning=True)
    output = Target(options.output, "--output") if options.output is not None else None
    trace = Target(options.trace, "--trace") if options.trace is not None else None
    outcome = Outcome(Request(launch, [os.fsencode(one) for one in command]))
    try:
        learning = Learning(launch, trace)
        # Where the profile goes to standard output, nothing else does.
        status = execute_into(
            outcome,
            interactive=options.interactive,
            quiet=options.quiet,
            stdout=1 if output is not None else 2,
            listening=learning.listen,
        )
        learning.close()
        if outcome.verdict is not None:
            _tell(options, outcome, learning.recorder, profile, output)
    finally:
        for file in (output, trace):
            if file is not None:
                file.close()
    return status


def _tell(options: Namespace, outcome: Outcome, recorder: Recorder, base: Profile, output: Target | None) -> None:
    learned = learned_profile(recorder, base, max_values=options.values)
    missing = _missing(outcome, recorder)
    content = to_oci(learned)
    if options.json:
        document = _document(outcome, recorder, learned, missing)
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    elif output is None:
        sys.stdout.buffer.write(content)
    if output is not None:
        output.write(content)
    if not options.quiet:
        say("".join(printable(line) + "\n" for line in _remarks(outcome, recorder, missing)))


def _remarks(outcome: Outcome, recorder: Recorder, missing: str | None) -> list[str]:
    observed = recorder.observed()
    allowed = [one for one in observed if one.allowed]
    measured = outcome.measured
    names, count = len({one.name for one in allowed}), sum(one.count for one in allowed)
    lines = [f"immure: {names} system calls, {count} times, in a box measured at {measured and measured.awarded}"]
    lines += [f"  refused: {one.name} ({one.answer}), {one.count} times" for one in observed if not one.allowed]
    if missing is not None:
        lines.append(f"  not complete: {missing}")
    return lines


def _missing(outcome: Outcome, recorder: Recorder) -> str | None:
    """Why the record may lack something that the command does, if it may."""
    verdict = outcome.verdict
    assert verdict is not None
    if verdict.signal == signal.SIGSYS:
        return "the profile that it ran under ended it for a call, which is not in the record"
    if verdict.kind not in ("exited", "signaled"):
        return f"the command was ended ({verdict.kind})"
    if recorder.crowded:
        return "there were more different calls than are kept"
    if recorder.hidden:
        return "the command has a filter of its own, and what that refuses is not seen"
    return None


def _document(outcome: Outcome, recorder: Recorder, learned: Profile, missing: str | None) -> dict[str, Any]:
    verdict, measured = outcome.verdict, outcome.measured
    assert verdict is not None
    assert measured is not None
    return {
        "schema": "immure.learned/v1",
        "policy": learned,
        "observed": [_row(one) for one in recorder.observed()],
        "complete": missing is None,
        "missing": missing,
        "exit": {"kind": verdict.kind, "code": verdict.code, "signal": verdict.signal},
        "level": {"asked": outcome.request.launch.level, "awarded": measured.awarded},
        "error": None,
    }


def _row(one: Observed) -> dict[str, Any]:
    return {
        "call": name_of(one.abi, one.number),
        "abi": one.abi.name,
        "number": one.number,
        "answer": one.answer,
        "count": one.count,
        "values": None if one.many or not one.values else sorted(one.values),
    }
