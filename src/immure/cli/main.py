"""The entry point. `immure run` with a plan in the cache goes on without importing anything more than it needs."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Runs the command line and gives the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] == "run":
        from immure.cli.fast import run_cached

        status = run_cached(arguments[1:])
        if status is not None:
            return status
    from immure.cli.commands import dispatch

    return dispatch(arguments)


def run_and_exit() -> None:
    """Ends the process without Python's clean-up, which takes longer than it is worth."""
    import os

    status = main()
    spawners = sys.modules.get("immure.engine.spawners")
    if spawners is not None:
        spawners.close_all()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
