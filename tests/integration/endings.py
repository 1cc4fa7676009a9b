"""Ways for a process with boxes to end, as programs: each prints what is to be gone, and then ends in its manner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

#: Makes two boxes with something in them, and a command of `run`, and says which processes that are.
PREPARE = """
import asyncio, gc, json, os, signal, sys, threading, time
from immure import AsyncSandbox, Sandbox, run
box = Sandbox()
box.exec(["sh", "-c", "setsid sleep 300 & exit 0"])
process = box.start(["sleep", "300"])
threading.Thread(target=run, args=(["sleep", "300"],), daemon=True).start()
from immure.host.tree import below
def names():
    try:
        return sorted(open(f"/proc/{pid}/comm").read().strip() for pid in below(os.getpid()))
    except OSError:
        return []
while names() != ["immure-init"] * 2 + ["immure-spawner"] + ["sleep"] * 3:
    time.sleep(0.01)
print(json.dumps(below(os.getpid())), flush=True)
"""

#: What the process does next. Each but the last few ends by itself.
ENDINGS: dict[str, str] = {
    "the last line": "",
    "sys.exit": "sys.exit(3)",
    "an exception": "raise ZeroDivisionError",
    "os._exit": "os._exit(3)",
    "an exit from a handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(300)"
    ),
    "with threads at work": (
        "def work():\n    while True: box.exec(['true'])\n"
        "for _ in range(4): threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.1)"
    ),
    "in a loop": "async def main():\n    async with AsyncSandbox() as one: sys.exit(3)\nasyncio.run(main())",
    # Whoever started us may have had it ignored.
    "Ctrl-C": (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(300)"
    ),
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(300)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV": "import faulthandler; faulthandler._sigsegv()",
}


@dataclass
class Ended:
    """`left` are descriptors that become readable when what was below the process is gone."""

    left: list[int]
    at: float


def end(name: str) -> Ended:
    """Carries one out, and comes back when the process itself has ended."""
    program = PREPARE + f"input()\n{ENDINGS[name]}\n"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        left = [os.pidfd_open(pid) for pid in json.loads(process.stdout.readline())]
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(30) != -signal.SIGALRM
        return Ended(left, time.monotonic())
