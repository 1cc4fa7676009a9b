"""Run one attempt and print what became of it: `python3 -I inside.py NAME ARGUMENTS`, or several: `--each`."""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import traceback
from inspect import signature
from pathlib import Path


def outcome(name: str, arguments: dict[str, object]) -> dict[str, str]:
    from security.attempt import ATTEMPTS, Denied

    importlib.import_module(f"security.attempts.{name.partition('.')[0]}")
    try:
        function = ATTEMPTS[name].function
        detail = function(**{wanted: arguments[wanted] for wanted in signature(function).parameters})
    except Denied as denied:
        return {"outcome": "denied", "errno": denied.word, "detail": str(denied)}
    except OSError as error:
        if error.errno is None:
            return {"outcome": "indeterminate", "errno": "", "detail": repr(error)}
        return {"outcome": "denied", "errno": errno.errorcode[error.errno], "detail": str(error)}
    except BaseException:
        return {"outcome": "indeterminate", "errno": "", "detail": traceback.format_exc()}
    return {"outcome": "succeeded", "errno": "", "detail": str(detail)}


def tell(name: str, arguments: str) -> None:
    print(json.dumps({"attempt": name, **outcome(name, json.loads(arguments))}), flush=True)


def tell_each() -> None:
    """Attempts from standard input, a name and arguments a line, each in a process of its own, forked from this one."""
    from security.attempts import SUBJECTS

    for subject in SUBJECTS:
        importlib.import_module(f"security.attempts.{subject}")
    for line in sys.stdin:
        name, arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            os.setsid()
            tell(name, arguments)
            os._exit(0)
        os.waitpid(child, 0)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    if sys.argv[1:] == ["--each"]:
        tell_each()
    else:
        tell(*sys.argv[1:])


if __name__ == "__main__":
    main()
