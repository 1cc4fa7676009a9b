"""Run one attempt and print what became of it: `python3 -I inside.py NAME ARGUMENTS`, or several: `--each`, or
`--together`.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
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


def asked() -> Iterator[tuple[str, str]]:
    """Attempts from standard input, a name and arguments a line."""
    from security.attempts import SUBJECTS

    for subject in SUBJECTS:
        importlib.import_module(f"security.attempts.{subject}")
    for line in sys.stdin:
        name, arguments = json.loads(line)
        yield name, arguments


def tell_each() -> None:
    """Each in a process of its own, forked from this one."""
    for name, arguments in asked():
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
    elif sys.argv[1:] == ["--together"]:
        # All in this process, where a fork takes seconds: what is denied leaves nothing behind.
        for name, arguments in asked():
            tell(name, arguments)
    else:
        tell(*sys.argv[1:])


if __name__ == "__main__":
    main()
