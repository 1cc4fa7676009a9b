"""`immure exec`, and the command of `immure run --keep`: a command in a box that is kept."""

from __future__ import annotations

import os
import secrets
import sys
from argparse import Namespace

from immure.cli.execute import REFUSED, complain, say
from immure.cli.fast import Dependencies
from immure.cli.fast_exec import KeptOutcome
from immure.cli.run import attend, environment_of, tell_denials
from immure.cli.show import open_target, write_result
from immure.engine.denial_watch import DENIALS, DenialWatch
from immure.engine.keeper.client import ask
from immure.engine.keeper.kept import KeptSandbox, keep
from immure.errors import ExecFailed, ImmureError, SpecError
from immure.plan.launch import Launch
from immure.runtimes.process.request import Request


def exec_command(options: Namespace, command: list[str]) -> int:
    """Runs a command in a kept box and gives the exit status, as `immure run` does."""
    target: int | None = None
    try:
        target = open_target(options.result) if options.result else None
        if not command:
            raise SpecError("there is no command", path="COMMAND", need="one after --")
        if options.detach:
            _refuse_with_detach(options)
            return _start(options.box, command, options)
        return _attend(KeptSandbox.attach(options.box), options, command, target)
    except ImmureError as error:
        complain(error)
        if target is not None:
            write_result(target, None, error, options.box, command)
        return _status(error)


def run_kept(options: Namespace, launch: Launch, command: list[str], target: int | None) -> int:
    """Makes a box that is kept, and runs the command in it, if there is one."""
    name = options.name or f"box-{secrets.token_hex(3)}"
    try:
        if options.detach:
            _refuse_with_detach(options)
        box = KeptSandbox(keep(launch, name))
        if options.detach:
            box.close()
            _start_or_end(name, command)
            sys.stdout.write(f"{name}\n")
            return 0
    except ImmureError as error:
        complain(error)
        if target is not None:
            write_result(target, None, error, name, command)
        return _status(error)
    if not command:
        box.close()
        sys.stdout.write(f"{name}\n")
        return 0
    if options.name is None and not options.quiet:
        say(f"immure: the box is kept as {name}\n")
    return _attend(box, options, command, target)


def _status(error: ImmureError) -> int:
    return error.exit_status if isinstance(error, ExecFailed) else REFUSED


def _refuse_with_detach(options: Namespace) -> None:
    for name in ("interactive", "tty", "result", "denials"):
        if getattr(options, name):
            raise SpecError(
                "nobody waits for a detached command", path="--detach", need=f"no --{name}", hint="immure logs"
            )


def _attend(box: KeptSandbox, options: Namespace, command: list[str], target: int | None) -> int:
    outcome: KeptOutcome | None = None
    error: ImmureError | None = None
    try:
        outcome = KeptOutcome(box.joined, _request(box, options, command))
        status = _watched(box, outcome, options) if options.denials else attend(outcome, options)
        error = outcome.error
    except ImmureError as problem:
        error = problem
        complain(error)
        status = _status(error)
    if target is not None:
        write_result(target, outcome, error, box.name, command)
    box.close()
    return status


def _watched(box: KeptSandbox, outcome: KeptOutcome, options: Namespace) -> int:
    """The same, and what the box's Sentry refuses meanwhile."""
    watch = DenialWatch(box.open_trace(DENIALS))
    try:
        status = attend(outcome, options)
        outcome.denials = watch.finish()
    finally:
        watch.close()
    tell_denials(outcome, quiet=options.quiet)
    return status


def _request(box: KeptSandbox, options: Namespace, command: list[str]) -> Request:
    # What `run` was given is the box's own already.
    own = options.verb == "exec"
    env = environment_of(options.env, Dependencies()) if own and options.env else None
    request = box.request(
        command,
        env,
        options.workdir if own else None,
        options.user if own else None,
        options.timeout if own else None,
        options.max_output if own else None,
    )
    if not own or options.max_output is None:
        # What a command line passes on need not be kept in memory.
        request.output_bytes = request.launch.output_bytes
    return request


def _start_or_end(name: str, command: list[str]) -> None:
    """A box whose command can't be started is of no use, and its name would be taken."""
    try:
        _start(name, command, None)
    except ImmureError:
        ask("kill", {"name": name})
        raise


def _start(name: str, command: list[str], options: Namespace | None) -> int:
    keywords = {}
    if options is not None:
        keywords = {
            "env": environment_of(options.env, Dependencies()) or None,
            "workdir": options.workdir,
            "user": options.user,
            "timeout_s": options.timeout,
            "output_mib": options.max_output,
        }
    argv = [os.fsencode(one) for one in command]
    number, _ = ask("start", {"name": name, "argv": argv, "keywords": keywords})
    if options is not None:
        sys.stdout.write(f"{number}\n")
    return 0
