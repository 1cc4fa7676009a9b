"""Run one attempt and print what became of it: `python3 -I inside.py NAME ARGUMENTS`."""

from __future__ import annotations

import errno
import importlib
import json
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


def main() -> None:
    name, arguments = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parents[1]))
    print(json.dumps({"attempt": name, **outcome(name, json.loads(arguments))}), flush=True)


if __name__ == "__main__":
    main()
