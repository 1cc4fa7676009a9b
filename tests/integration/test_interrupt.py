"""Ctrl-C at any moment."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time

import pytest

from .command_line import CommandLine, shell
from .processes import eventually, left_behind

pytestmark = pytest.mark.rootless

OWN = 7
#: A line of a traceback through our code, once it had its first say: until then Python's own start is interrupted.
OURS = re.compile(rb"/immure/(?!(cli/)?__(init|main)__\.py)")
ROUNDS = 60


def interrupted(cli: CommandLine, delay: float, words: list[str]) -> tuple[int, bytes]:
    """The status of a run that its process group was interrupted in, and what it said."""
    with cli.start(*words, "--", *shell("sleep 0.15; exit 7"), process_group=0) as process:
        time.sleep(delay)
        try:
            os.killpg(process.pid, signal.SIGINT)
        except ProcessLookupError:
            pass
        status = process.wait(20)
        assert process.stderr is not None
        return status, process.stderr.read()


def check(status: int, said: bytes) -> None:
    if b"KeyboardInterrupt" in said and not OURS.search(said):
        # Python itself was interrupted, before it came to us.
        return
    # Before there is a handler the signal itself ends the process, which shells show as 130.
    assert status in (130, OWN, -signal.SIGINT), (status, said)
    assert said == b""


def duration(cli: CommandLine, words: list[str]) -> float:
    began = time.monotonic()
    assert cli.run(*words, "--", *shell("sleep 0.15; exit 7")).returncode == OWN
    return time.monotonic() - began


@pytest.mark.parametrize("words", [[], ["--max-output", "1"]], ids=["passed", "pumped"])
def test_at_random_moments(words: list[str], cli: CommandLine) -> None:
    dice = random.Random(20261124)
    # The first run fills the cache.
    duration(cli, words)
    whole = duration(cli, words)
    seen: dict[int, int] = {}
    for _ in range(ROUNDS // 2):
        delay = dice.uniform(0, whole * 1.1)
        status, said = interrupted(cli, delay, words)
        check(status, said)
        seen[status] = seen.get(status, 0) + 1
        assert eventually(lambda: not left_behind()), (delay, left_behind())
    assert seen.get(130, 0) > ROUNDS // 10, seen


def test_while_there_is_no_cached_plan(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> None:
    dice = random.Random(7)
    for _ in range(12):
        empty = CommandLine(tmp_path_factory.mktemp("empty"))
        status, said = interrupted(empty, dice.uniform(0.02, 0.3), [])
        check(status, said)
        assert not list(empty.cache.glob(".*")), "no half-written file"


def test_a_second_interrupt_while_the_first_is_under_way(cli: CommandLine) -> None:
    with cli.start(
        "--", *shell("trap 'sleep 0.3; exit 11' INT; echo ready; sleep 20 & wait"), process_group=0
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.05)
        assert process.wait(20) in (11, 130)


def test_an_api_user_who_interrupts_gets_the_exception_and_no_box(cli: CommandLine) -> None:
    program = (
        "import immure, sys\n"
        "print('ready', flush=True)\n"
        "try: immure.run(['sleep', '60'])\n"
        "except KeyboardInterrupt: pass\n"
        "from pathlib import Path\n"
        "names = [p.read_text() for p in Path('/proc').glob('[0-9]*/comm')]\n"
        "print(immure.run(['echo', 'again']).stdout.text().strip())"
    )
    with subprocess.Popen([cli.words("run")[0], "-c", program], stdout=subprocess.PIPE, env=cli.env) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert eventually(lambda: [one for one in left_behind() if one.name == "immure-init"])
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == b"again\n"
        assert process.wait(20) == 0
