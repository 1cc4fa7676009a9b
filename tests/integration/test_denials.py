"""`denials=True`: what real boxes refused a command, over both versions of runsc."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from immure import AsyncSandbox, BoxError, RuntimeUnavailable, Sandbox, run
from immure.engine.result import Denial
from runscs import VERSIONS, runsc_of, using

from .command_line import CommandLine
from .kept_boxes import kept_boxes

pytestmark = [
    pytest.mark.rootless,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="host: the calls are x86_64's"),
]
PROGRAM = """
import os, socket
def connect():
    socket.socket(socket.AF_INET, socket.SOCK_STREAM).connect(("192.0.2.1", 80))
tries = [lambda: open("/usr/mine", "w")] * 2 + [lambda: os.mkdir("/usr/folder"), connect, lambda: os.setuid(0)]
for one in [*tries, lambda: open("/none/such"), lambda: open("/tmp/own", "w")]:
    try:
        one()
    except OSError as error:
        print(error.errno)
"""
TRIES = ["/usr/bin/python3", "-ISc", PROGRAM]
#: The control: the same where nothing of it is refused.
ALLOWED = ["/usr/bin/python3", "-ISc", "open('/tmp/own', 'w'); open('/etc/hostname').read()"]


@pytest.fixture(params=VERSIONS)
def runsc(request: pytest.FixtureRequest) -> Iterator[None]:
    with using(runsc_of(request.param)):
        yield


def counts(found: tuple[Denial, ...]) -> dict[str, int]:
    return {f"{one.code} {one.target}".strip(): one.count for one in found}


WANTED = {
    "IMM-FS-OPENAT /usr/mine": 2,
    "IMM-FS-MKDIR": 1,
    "IMM-NET-CONNECT 192.0.2.1:80": 1,
    "IMM-SYS-SETUID 0": 1,
}


def test_of_a_command_in_a_box(runsc: None) -> None:
    with Sandbox(level="L3") as box:
        result = box.exec(TRIES, denials=True)
        assert len(result.stdout.split()) == 6, "all but one were refused or not there"
        assert counts(result.denials) == WANTED
        assert not result.denials_complete
        assert all(one.rule and one.fix for one in result.denials)
        assert box.exec(ALLOWED, denials=True).denials == ()
        assert box.exec(TRIES).denials == (), "nobody asked"


def test_of_a_command_in_a_box_of_its_own(runsc: None) -> None:
    assert counts(run(TRIES, level="L3", denials=True).denials) == WANTED


def test_of_a_command_that_is_awaited(runsc: None) -> None:
    async def main() -> None:
        async with AsyncSandbox(level="L3") as box:
            assert counts((await box.exec(TRIES, denials=True)).denials) == WANTED
            waits = asyncio.create_task(box.exec(["sleep", "300"], denials=True))
            await asyncio.sleep(0.5)
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            # The trace that it had is free again.
            assert (await box.exec(ALLOWED, denials=True)).denials == ()

    asyncio.run(main())


def test_a_box_that_is_traced_already() -> None:
    with using(runsc_of(VERSIONS[0])), Sandbox(level="L3") as box, box.trace():
        with pytest.raises(BoxError, match="traced"):
            box.exec(["true"], denials=True)
        assert box.exec(["true"]).ok


def test_a_command_that_can_t_be_started_leaves_no_trace_behind() -> None:
    with using(runsc_of(VERSIONS[0])), Sandbox(level="L3") as box:
        with pytest.raises(Exception, match="not found"):
            box.exec(["/none/such"], denials=True)
        with box.trace():
            pass


def test_on_the_command_line(runsc: None, tmp_path: Path) -> None:
    """Nor is it lost where an earlier call without it has left its plan behind."""
    script = "for i in 1 2; do echo >/usr/mine; done"
    told, immure = tmp_path / "told", CommandLine(tmp_path / "cache")
    for options in ([], ["--denials"], ["--denials", "-q"]):
        ended = immure.run("--level", "L3", *options, "--result", told, "--", "sh", "-c", script)
        remarks = [line for line in ended.stderr.decode().splitlines() if line.startswith("immure: refused")]
        result = json.loads(told.read_text())
        assert [(one["target"], one["count"]) for one in result["denials"]] == ([("/usr/mine", 2)] if options else [])
        assert bool(remarks) == (options == ["--denials"])


@pytest.mark.root
def test_what_the_command_line_can_t_watch(runsc: None, tmp_path: Path) -> None:
    named = ["--level", "L3", "--denials", "--name", "watched"]
    for words in (["--denials", "--", "true"], [*named, "--keep"], [*named, "--detach", "--", "true"]):
        ended = CommandLine(tmp_path).run(*words)
        assert ended.returncode == 125
        assert b"--denials" in ended.stderr or b"Sentry" in ended.stderr


def test_in_a_box_that_is_kept(runsc: None, tmp_path: Path) -> None:
    """Of the command alone that asks: neither what came before it nor what comes after."""
    script = ["--", "sh", "-c", "echo >/usr/mine; exit 3"]
    told, refused = tmp_path / "told", b"immure: refused openat /usr/mine"
    with kept_boxes(tmp_path / "cache", tmp_path) as kept:
        kept.keep("desk", "--level", "L3")
        for options in ([], ["--denials"], ["--denials", "-q"]):
            ended = kept.carry_out("exec", *options, "--result", told, "desk", *script)
            assert ended.returncode == 3
            found = [(one["target"], one["count"]) for one in json.loads(told.read_text())["denials"]]
            assert found == ([("/usr/mine", 1)] if options else [])
            assert (refused in ended.stderr) == (options == ["--denials"])
        made = kept.run("--level", "L3", "--keep", "--name", "second", "--denials", *script)
        assert (made.returncode, refused in made.stderr) == (3, True)
        detached = kept.carry_out("exec", "--denials", "-d", "desk", "--", "true")
        assert (detached.returncode, b"--denials" in detached.stderr) == (125, True)
        kept.keep("lower")
        below = kept.carry_out("exec", "--denials", "lower", "--", "true")
        assert (below.returncode, b"Sentry" in below.stderr) == (125, True)


@pytest.mark.root
def test_below_l3_nobody_could_tell() -> None:
    with pytest.raises(RuntimeUnavailable, match="Sentry"):
        run(["true"], denials=True)
    with Sandbox() as box, pytest.raises(RuntimeUnavailable, match="Sentry"):
        box.exec(["true"], denials=True)
