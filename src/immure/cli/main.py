"""The entry point. `immure run` with a plan in the cache goes on without importing anything more than it needs."""

from __future__ import annotations

import os
import sys


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and gives the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] == "run":
        from immure.cli.fast import run_cached

        status = run_cached(arguments[1:])
        if status is not None:
            return status
    elif arguments and arguments[0] == "exec":
        from immure.cli.fast_exec import exec_plain

        status = exec_plain(arguments[1:])
        if status is not None:
            return status
    from immure.cli.commands import dispatch

    return dispatch(arguments)


def run_and_exit() -> None:
    """Ends the process without Python's clean-up, which takes longer than it is worth."""
    _open_missing()
    status = main()
    spawners = sys.modules.get("immure.engine.spawners")
    if spawners is not None:
        spawners.close_all()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError):
            # Closed from the start, or by its reader.
            pass
    os._exit(status)


def _open_missing() -> None:
    """A descriptor of ours under a standard number would be taken for the caller's."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
