"""A caller that is killed takes everything along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from .processes import descendants, eventually, running

pytestmark = pytest.mark.rootless

PROGRAM = """
import os, sys, threading, time
from immure import Sandbox, run
boxes = [Sandbox(), Sandbox(network="host", level="L1")]
for box in boxes:
    box.exec(["sh", "-c", "setsid sleep 300 & sleep 301 & exit 0"])
threading.Thread(target=run, args=(["sleep", "302"],)).start()
threading.Thread(target=boxes[0].exec, args=(["sleep", "303"],)).start()
time.sleep(0.3)
print("ready", flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_all_its_boxes_end(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    below = descendants(process.pid)
    names = [one.name for one in below]
    assert names.count("immure-spawner") == 2
    assert names.count("sleep") == 6
    process.send_signal(number)
    process.stdout.close()
    if number == signal.SIGINT:
        # The interpreter waits for its threads; a second one ends it.
        os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    assert eventually(lambda: not [one for one in below if running(one.pid)]), [
        one for one in below if running(one.pid)
    ]
