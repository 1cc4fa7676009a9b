"""The next command's process in a box in a Sentry, as commands of the box see it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from channel.guests import eventually
from immure import Pool, Sandbox

pytestmark = [pytest.mark.rootless, pytest.mark.timeout(60)]

#: Started, and so no command that it becomes.
SEEN = 'for one in /proc/[0-9]*; do read -r name < $one/comm; [ "$name" = immure-next ] && echo ${one#/proc/}; done'


def seen(box: Sandbox) -> str:
    """The number in its box of the process that waits; empty where there is none."""
    return box.start(["/bin/sh", "-c", SEEN]).wait().stdout.text().strip()


def waiting(box: Sandbox) -> str:
    assert eventually(lambda: seen(box))
    return seen(box)


def own_number(box: Sandbox, **options: int) -> str:
    return box.exec(["/bin/sh", "-c", "echo $$"], **options).stdout.text().strip()


def test_it_becomes_the_next_command(runsc: Path) -> None:
    with Sandbox(level="L3") as box:
        assert seen(box) == ""
        assert box.exec(["true"]).ok
        for _ in range(5):
            assert waiting(box) == own_number(box)


def test_whoever_the_next_one_is(runsc: Path) -> None:
    """Its outputs are its own, so that it can open them anew."""
    script = "id -u; echo again > /dev/stdout; echo err > /dev/stderr; grep -c 'Seccomp:.2' /proc/self/status"
    with Sandbox(level="L3") as box:
        own = int(box.exec(["id", "-u"]).stdout)
        # A plain user's box may have one id alone.
        for user in (None, 1234, 1234, None, 77) if os.geteuid() == 0 else (None, None):
            number = waiting(box)
            result = box.exec(["/bin/sh", "-c", f"echo $$; {script}"], user=user)
            expected = f"{number}\n{user or own}\nagain\n1\n".encode()
            assert (result.stdout, result.stderr) == (expected, b"err\n")


def test_a_copy_has_its_own(runsc: Path) -> None:
    with Sandbox(level="L3") as box:
        assert box.exec(["true"]).ok
        number = waiting(box)
        with box.snapshot() as snapshot, Sandbox.restore(snapshot) as copy:
            assert own_number(copy) == number
            assert waiting(copy) != number
        assert own_number(box) == number


def test_a_box_of_a_pool_has_one_for_its_first_user(newest: Path) -> None:
    with Pool(size=1, level="L3") as pool, pool.claim() as box:
        assert waiting(box) == own_number(box)


def test_it_stands_still_with_its_box(runsc: Path) -> None:
    with Sandbox(level="L3") as box:
        assert box.exec(["true"]).ok
        number = waiting(box)
        box.pause()
        box.resume()
        assert own_number(box) == number


@pytest.mark.skipif(os.geteuid() != 0, reason="rootless: a plain user's box may have one id alone")
class TestApart:
    """It has an id that no command has."""

    def test_no_command_ends_it(self, runsc: Path) -> None:
        with Sandbox(level="L3") as box:
            assert box.exec(["true"]).ok
            number = waiting(box)
            ended = box.start(["/bin/sh", "-c", "kill -0 $$ && kill -9 $0", number]).wait()
            assert b"not permitted" in ended.stderr
            assert own_number(box) == number

    def test_no_command_looks_into_it(self, newest: Path) -> None:
        """runsc of 2024 shows the environment and the descriptors of any process to any other."""
        with Sandbox(level="L3") as box:
            assert box.exec(["true"]).ok
            looks = box.start(["/bin/sh", "-c", "cat /proc/$0/environ; ls /proc/$0/fd", waiting(box)]).wait()
            assert (looks.stdout, looks.stderr.lower().count(b"permi")) == (b"", 2), looks.stderr
            # The control: its own.
            assert b"PATH=" in box.start(["/bin/sh", "-c", "ls /proc/$$/fd && cat /proc/$$/environ"]).wait().stdout
