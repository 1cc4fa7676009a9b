"""The control: the same program outside a box, where nothing may hinder it."""

from __future__ import annotations

import os
import subprocess

from security.attempt import Attempt, Outside
from security.build import copied_attempts
from security.report import Report, parsed
from security.scenes import Stage

_NOBODY = 65534


def run_outside(attempt: Attempt, stage: Stage) -> Report:
    """Run an attempt in the namespaces that its control asks for, after the stage's prelude."""
    command = stage.command(str(copied_attempts()), attempt, stage.outside)
    # Descriptors that the stage made inheritable are for the program to find.
    result = subprocess.run(
        [*_wrapper(attempt.outside, stage.prelude), *command],
        stdin=subprocess.DEVNULL if stage.stdin is None else stage.stdin,
        capture_output=True,
        close_fds=False,
        text=True,
        timeout=60,
        cwd=stage.folder if attempt.outside is not Outside.PLAIN_USER else "/",
    )
    return parsed(attempt.name, result.stdout, f"exit {result.returncode}, {result.stderr}")


def _wrapper(outside: Outside, prelude: list[str]) -> list[str]:
    root = os.geteuid() == 0
    match outside:
        case Outside.HERE:
            return []
        case Outside.PLAIN_USER:
            return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"] if root else []
        case Outside.OWN_MOUNTS:
            unshare = ["unshare", "--mount", "--propagation=private"]
        case Outside.OWN_NETWORK:
            unshare = ["unshare", "--net"]
    # Without root it takes a user namespace, of which one is root.
    owned = [] if root else ["--user", "--map-root-user"]
    return [*unshare, *owned, "sh", "-ec", "\n".join([*prelude, 'exec "$@"']), "sh"]
