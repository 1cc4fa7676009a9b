"""A process with boxes that has workers of `multiprocessing`: `python -m integration.workers METHOD`.

Prints a JSON object: what each worker came to, and how the parent's boxes are afterwards.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from immure import ImmureError, Sandbox, run

#: What a forked worker finds; one that was spawned has none.
box: Sandbox | None = None
_kept: list[Sandbox] = []


def work(number: int) -> dict[str, object]:
    """Makes boxes of its own, and leaves one open; its parent's is refused."""
    with Sandbox() as own:
        answers = [own.exec(["echo", str(number)]).stdout.text(), run(["echo", str(number)]).stdout.text()]
    _kept.append(Sandbox())
    refused = ""
    if box is not None:
        try:
            box.exec(["true"])
        except ImmureError as error:
            refused = str(error)
        box.close()
    return {"pid": os.getpid(), "left": _kept[-1]._box.pid, "answers": answers, "refused": refused}


def main(method: str) -> None:
    global box
    box = Sandbox()
    process = box.start(["cat"], stdin=-1)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        found = list(pool.map(work, range(4)))
    # Its workers are gone, and what they did to their copies is nothing to it.
    assert process.stdin is not None
    process.stdin.write(b"still here\n")
    process.stdin.close()
    report = {
        "parent": os.getpid(),
        "workers": found,
        "started": process.wait(20).stdout.text(),
        "asked": box.exec(["echo", "fine"]).stdout.text(),
    }
    box.close()
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
