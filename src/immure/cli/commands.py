"""What each command does. Thin: everything is in the engine."""

from __future__ import annotations

import sys
from argparse import Namespace

from immure.cli.execute import complain
from immure.cli.parser import RUN_USAGE, USAGE, make_parser
from immure.errors import ImmureError, SpecError


def dispatch(argv: list[str]) -> int:
    """Parses and carries out; gives the exit status."""
    command: list[str] = []
    runs = argv[:1] in (["run"], ["exec"]) or argv[:2] == ["policy", "learn"]
    # Without a command it is of a box that is there.
    runs = runs or (argv[:1] == ["trace"] and "--" in argv)
    if runs and "--" in argv:
        # The command is nobody's business but its own: argparse never sees it.
        end = argv.index("--")
        argv, command = argv[:end], argv[end + 1 :]
    parser = make_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        failed = stop.code not in (0, None)
        return RUN_USAGE if failed and runs else USAGE if failed else 0
    if options.version:
        from immure import __version__

        sys.stdout.write(f"immure {__version__}\n")
        return 0
    if options.verb is None:
        parser.print_help()
        return USAGE
    try:
        return _VERBS[options.verb](options, argv, command)
    except ImmureError as error:
        complain(error)
        return RUN_USAGE if runs else USAGE


def _run(options: Namespace, argv: list[str], command: list[str]) -> int:
    from immure.cli.run import run_command

    return run_command(options, argv[1:], _command(options, command))


def _command(options: Namespace, command: list[str]) -> list[str]:
    if options.command and command:
        raise SpecError(
            f"unexpected argument {options.command[0]!r}", path="COMMAND", need="options, then --, then the command"
        )
    return command or options.command


def _doctor(options: Namespace, argv: list[str], command: list[str]) -> int:
    from immure.cli.doctor import doctor

    return doctor(level=options.level, json=options.json)


def _policy(options: Namespace, argv: list[str], command: list[str]) -> int:
    if options.policy_verb == "learn":
        from immure.cli.learn import learn

        return learn(options, _command(options, command))
    from immure.cli.policy import policy

    return policy(options)


def _exec(options: Namespace, argv: list[str], command: list[str]) -> int:
    from immure.cli.exec import exec_command

    return exec_command(options, _command(options, command))


def _trace(options: Namespace, argv: list[str], command: list[str]) -> int:
    from immure.cli.trace import trace

    return trace(options, command)


def _kept(options: Namespace, argv: list[str], command: list[str]) -> int:
    from immure.cli.kept import kept

    return kept(options)


def _cp(options: Namespace, argv: list[str], command: list[str]) -> int:
    from immure.cli.copy import copy

    return copy(options)


def _serve(options: Namespace, argv: list[str], command: list[str]) -> int:
    from immure.daemon.serve import serve

    return serve(socket=options.socket, listen=options.listen, token_file=options.token_file)


_KEPT = ("ps", "logs", "kill", "pause", "resume", "stats")
_VERBS = {
    "run": _run,
    "exec": _exec,
    "trace": _trace,
    "cp": _cp,
    "doctor": _doctor,
    "policy": _policy,
    "serve": _serve,
    **dict.fromkeys(_KEPT, _kept),
}
